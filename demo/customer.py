"""A generated customer: their profile, their reservations and what they say."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage

from demo import wording


class Customer:
    """One customer with a profile, and the conversation that they have with the service desk."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.name, self.surname = rng.choice(wording.FIRST_NAMES), rng.choice(wording.LAST_NAMES)
        self.user = f"{self.name}_{self.surname}_{rng.randint(1000, 9999)}".lower()
        self.payments = [f"{rng.choice(wording.PAYMENT_KINDS)}_{rng.randint(10**6, 10**7 - 1)}" for _ in range(3)]
        self.bookings = [self._code(6) for _ in range(rng.randint(2, 5))]

    def conversation(self, prompt: str) -> Iterator[AnyMessage]:
        """About thirty messages, without ids, the system prompt first."""
        yield SystemMessage(prompt)
        yield self._says(wording.OPENINGS)
        yield AIMessage(self._fill(wording.QUESTIONS[0]))
        yield self._says(wording.ANSWERS[:2])
        yield from self._tool("get_user_details", {"user_id": self.user}, json.dumps(self._profile()))
        for booking in self.bookings[:3]:
            yield from self._lookup(booking)
        for _ in range(self.rng.randint(4, 9)):
            yield from self._exchange()
        yield AIMessage(self._fill(wording.QUESTIONS[3]))
        yield self._says(wording.CLOSINGS)

    def _exchange(self) -> Iterator[AnyMessage]:
        """The desk asks or offers something, perhaps after using a tool, and the customer answers."""
        step = self.rng.choice((self._think, self._search, self._change, self._nothing, self._nothing))
        yield from step()
        yield AIMessage(self._offer() if self.rng.random() < 0.4 else self._fill(self.rng.choice(wording.QUESTIONS)))
        yield self._says(wording.ANSWERS)

    def _nothing(self) -> Iterator[AnyMessage]:
        return iter(())

    def _think(self) -> Iterator[AnyMessage]:
        return self._tool("think", {"thought": self._fill(self.rng.choice(wording.THOUGHTS))}, "")

    def _lookup(self, booking: str) -> Iterator[AnyMessage]:
        args = {"reservation_id": booking}
        return self._tool("get_reservation_details", args, json.dumps(self._reservation(booking)))

    def _search(self) -> Iterator[AnyMessage]:
        flights = [self._flight(seats=True) for _ in range(self.rng.randint(2, 7))]
        args = {key: flights[0][key] for key in ("origin", "destination", "date")}
        return self._tool("search_direct_flight", args, json.dumps(flights))

    def _change(self) -> Iterator[AnyMessage]:
        reservation = self._reservation(self.rng.choice(self.bookings))
        args = {key: reservation[key] for key in ("reservation_id", "cabin", "flights")}
        failed = self.rng.random() < 0.4
        answer = self._fill(self.rng.choice(wording.ERRORS)) if failed else json.dumps(reservation)
        return self._tool("update_reservation_flights", args, answer)

    def _tool(self, name: str, args: dict[str, Any], answer: str) -> Iterator[AnyMessage]:
        call_id = "call_" + self._code(24, string.ascii_letters + string.digits)
        yield AIMessage("", tool_calls=[{"id": call_id, "name": name, "args": args}])
        yield ToolMessage(answer, name=name, tool_call_id=call_id)

    def _says(self, phrases: tuple[str, ...]) -> HumanMessage:
        return HumanMessage(self._fill(self.rng.choice(phrases)))

    def _offer(self) -> str:
        offers = "\n\n".join(self._fill(wording.OFFER) for _ in range(self.rng.randint(1, 3)))
        return f"These flights are available:\n\n{offers}\n\nWhich of them would you like to take?"

    def _fill(self, template: str) -> str:
        rng, (origin, destination) = self.rng, self.rng.sample(wording.AIRPORTS, 2)
        why = rng.choice(wording.REASONS).format(day=rng.randint(16, 30), price=rng.randint(60, 900))
        hour = rng.randint(6, 20)
        return template.format(
            a=origin, b=destination, why=why, hour=hour, later=hour + 2, day=rng.randint(16, 30), name=self.name,
            price=rng.randint(60, 1900), cabin=rng.choice(wording.CABINS), booking=rng.choice(self.bookings),
            user=self.user, digits=rng.randint(1000, 9999), flight=self._flight_number(),
            payment=rng.choice(self.payments),
        )  # fmt: skip

    def _profile(self) -> dict[str, Any]:
        rng, (city, country) = self.rng, self.rng.choice(wording.CITIES)
        return {
            "name": {"first_name": self.name, "last_name": self.surname},
            "address": {"street": f"{rng.randint(1, 990)} {rng.choice(wording.STREETS)}", "city": city,
                        "country": country, "zip": str(rng.randint(10000, 99999))},
            "email": f"{self.name}.{self.surname}{rng.randint(1000, 9999)}@example.com".lower(),
            "dob": self._birthday(),
            "payment_methods": [{"id": payment, "amount": rng.randint(10, 400)} for payment in self.payments],
            "saved_passengers": [self._passenger() for _ in range(rng.randint(1, 3))],
            "membership": rng.choice(wording.TIERS),
            "reservations": self.bookings,
        }  # fmt: skip

    def _reservation(self, booking: str) -> dict[str, Any]:
        rng = self.rng
        passengers = [self._passenger() for _ in range(rng.randint(1, 4))]
        return {
            "reservation_id": booking,
            "user_id": self.user,
            "flight_type": rng.choice(("one_way", "round_trip")),
            "cabin": rng.choice(wording.CABINS),
            "flights": [self._flight(seats=False) for _ in range(rng.randint(2, 5))],
            "passengers": passengers,
            "tickets": [f"{rng.randrange(10**10):010}" for _ in passengers],
            "payment_history": [{"payment_id": rng.choice(self.payments), "amount": rng.randint(100, 9000)}],
            "created_at": f"2024-05-{rng.randint(1, 14):02}T{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:00",
            "total_bags": rng.randint(0, 4),
            "insurance": rng.choice(("yes", "no")),
        }

    def _flight(self, *, seats: bool) -> dict[str, Any]:
        rng, (origin, destination) = self.rng, self.rng.sample(wording.AIRPORTS, 2)
        flight = {
            "origin": origin,
            "destination": destination,
            "flight_number": self._flight_number(),
            "date": f"2024-05-{rng.randint(16, 30)}",
        }
        if not seats:
            return {**flight, "price": rng.randint(60, 1900)}
        free = {cabin: rng.randint(0, 20) for cabin in wording.CABINS}
        prices = {cabin: rng.randint(50, 900) for cabin in wording.CABINS}
        return {**flight, "status": "available", "available_seats": free, "prices": prices}

    def _passenger(self) -> dict[str, str]:
        first, last = self.rng.choice(wording.FIRST_NAMES), self.rng.choice(wording.LAST_NAMES)
        return {"first_name": first, "last_name": last, "dob": self._birthday()}

    def _birthday(self) -> str:
        return f"{self.rng.randint(1950, 2004)}-{self.rng.randint(1, 12):02}-{self.rng.randint(1, 28):02}"

    def _flight_number(self) -> str:
        return f"FP{self.rng.randint(1, 300):03}"

    def _code(self, length: int, alphabet: str = string.ascii_uppercase + string.digits) -> str:
        return "".join(self.rng.choices(alphabet, k=length))
