"""The phrases that `conversation` draws from: a fictional airline's service desk."""

from __future__ import annotations

import random

FIRST_NAMES = ("Ada", "Bruno", "Chen", "Dalia", "Emre", "Farah", "Goran", "Hana", "Ivan", "Jonas", "Keiko", "Lucia")
LAST_NAMES = ("Adeyemi", "Bauer", "Costa", "Dubois", "Eriksen", "Fischer", "Gupta", "Haddad", "Ito", "Jansen", "Kovac")
STREETS = ("Alder Lane", "Birch Road", "Canal Street", "Dove Hill", "Elm Square", "Ferry Quay", "Grange Avenue")
CITIES = (("Lisbon", "Portugal"), ("Oslo", "Norway"), ("Turin", "Italy"), ("Graz", "Austria"), ("Lyon", "France"))
AIRPORTS = ("AMS", "ATH", "BCN", "BRU", "CDG", "CPH", "DUB", "FCO", "HEL", "LIS", "MAD", "MUC", "OSL", "PRG", "VIE")
CABINS = ("basic", "standard", "business")
PAYMENT_KINDS = ("gift_card", "credit_card", "voucher")
TIERS = ("blue", "silver", "gold")

OPENINGS = (
    "Hi there! I need to change my flight from {a} to {b}. {why}",
    "Hello, I booked a trip from {a} to {b} and I would like to cancel it. {why}",
    "Good morning. Can you tell me what it would cost to move my {a}-{b} flight to another day? {why}",
    "Hey, I have a reservation to {b} and I think the number of bags on it is wrong. {why}",
    "I want to upgrade my seat on the flight to {b}, please. {why}",
)
REASONS = (
    "Something came up at work and I can't leave before the {day}th.",
    "My sister is getting married on the {day}th, so it has to be that week.",
    "I'm feeling unwell and my doctor told me not to fly before the {day}th.",
    "The connection in the middle is too short for me and it makes me nervous.",
    "I'd rather not pay more than ${price} in total, if that's possible at all.",
    "I already tried the website twice and it keeps showing me an error.",
)
ANSWERS = (
    "Sure, my user id is {user}. {why}",
    "It's {user}. I don't remember the reservation number, can you look it up?",
    "The reservation should be {booking}, but I'm not completely sure about it.",
    "Yes, please go ahead with {flight}.",
    "Yes. And could you use the payment method ending in {digits}?",
    "Hmm, that's more expensive than I hoped. Is there anything on the {day}th, or in another cabin? {why}",
    "What would the difference be if I took {flight} instead? I don't mind leaving early.",
    "Okay, and does the travel insurance cover it? I'm quite sure that I paid for it. {why}",
    "Could you also add one checked bag to {booking}, please?",
    "I see. Let me think about it. What are the options for the way back to {a}? {why}",
)
CLOSINGS = (
    "Thank you so much for your help!",
    "Great, that's all I needed. Thanks, have a nice day.",
    "All right, I'll call again if something changes. Bye!",
)
QUESTIONS = (
    "I can help you with that. Could you please give me your user id and the reservation number of the trip from {a} "
    "to {b}?",
    "Thank you for the details. Just to be sure: you want to leave on the {day}th and keep the {cabin} cabin for all "
    "passengers, is that right?",
    "I'm afraid that reservation {booking} was booked in the basic cabin, which cannot be changed. What I can do is to "
    "cancel it, if you have travel insurance. Would you like me to look into that?",
    "The refund of ${price} goes back to the original payment method within 5 to 7 business days. Is there anything "
    "else that I can do for you today?",
    "The travel insurance of {booking} covers illness and bad weather. Could you tell me the reason for your request, "
    "so that I can add it to the reservation?",
    "I understand, {name}. Which payment method would you like to use? Your profile lists {payment}.",
)
OFFER = (
    "- **Flight {flight}**\n   - From {a} to {b}, on the {day}th\n   - Departure: {hour}:00, arrival: {later}:30\n"
    "   - Price: ${price} ({cabin})"
)
THOUGHTS = (
    "The user wants to change {booking}. It is a {cabin} reservation, so I have to check the fare rules before I offer "
    "another flight, and then ask for an explicit confirmation.",
    "The payment method {payment} has not enough balance for ${price}. I should list the other methods in the profile "
    "and let the user choose.",
    "Flight {flight} leaves at {hour}:00 and is the earliest one on the {day}th. The difference to the old price is "
    "${price}, which the user said is acceptable.",
)
ERRORS = (
    "Error: payment amount does not add up, total price is {price}",
    "Error: not enough seats on flight {flight}",
    "Error: reservation {booking} not found",
)

RULES = """# Service desk policy

Today is the 15th. All times are local to the airport they belong to.

You help customers to book, change and cancel flights, and to correct baggage and passenger details.

- Before you change anything, list what you are about to do and wait for an explicit yes.
- Give no information that does not come from the customer or from a tool, and no personal recommendations.
- Call one tool at a time. A message either calls a tool or talks to the customer.
- Decline what this policy does not allow. Hand over to a person only when the tools cannot do what it does allow.

## Reservations

- Ask for the user id first, then for the trip, the dates and the cabin. At most five passengers share a reservation,
  and all of them fly the same flights in the same cabin.
- Payment methods have to be in the customer's profile already: one credit card, one voucher and up to three gift
  cards a reservation. What is left on a voucher is lost.
- Basic fares cannot be changed. Other fares can, as long as origin and destination stay the same; flights that are
  kept keep their price. A change of cabin covers every flight of the reservation.
- Bags can be added but not removed. Blue members check no bag free in basic and one in standard; silver members get
  one more than blue members, and gold members two more. A further bag costs $45.
- Insurance is bought with the reservation, for $28 a passenger, and cannot be added later.

## Cancellations and compensation

- Within a day of booking, or when the airline cancelled the flight, any reservation can be cancelled. After that,
  business can always be cancelled, other cabins only with insurance and for health or weather reasons.
- A trip of which a part has been flown cannot be cancelled here: hand it over.
- Refunds go to the original payment methods within 5 to 7 business days.
- Offer a voucher only to insured customers and to silver and gold members, only after checking the facts, and only
  when they complain: $90 a passenger for a cancelled flight, $45 for a delayed one.

## Shortest flights and lowest fares
"""


def policy() -> str:
    """The system prompt: the rules and a table of routes, the same in every conversation."""
    rng = random.Random(0)
    pairs = [(a, b) for i, a in enumerate(AIRPORTS) for b in AIRPORTS[i + 1 :]]
    lines = (
        f"- {a} to {b}: {rng.randint(1, 4)} h {rng.randint(0, 59)} min, from ${rng.randint(49, 320)}" for a, b in pairs
    )
    return RULES + "\n" + "\n".join(lines)
