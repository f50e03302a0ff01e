"""Whether anything wrong can be read, or anything acknowledged be lost, when it is tried very often.

`machine` plays random histories (on stores that fail, `faulty`, and in `power` on a model of a `node` that loses it),
`kills` ends writers and compactors at random moments, `flips` damages each bit of each kind of record in a `small`
store, `fuzz` feeds the decoders in `targets` with bytes that nobody wrote. What fails names the seed that repeats it.
"""
