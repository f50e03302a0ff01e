"""A long agent thread kept in one SQLite file: run it with `python -m demo`.

Read in this order: `conversation` (what is said; `customer` and `wording` make it up), `graph` (the LangGraph graph
that says it), `measure` (a saver that notes what its puts cost), `steps` (run, continue, fork, read back), `report`
(the table and the JSON object), `__main__` (the command line).
"""
