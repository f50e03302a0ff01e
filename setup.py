"""The one part that is compiled; without a compiler Foldpoint is installed without it, and works in Python alone."""

import sysconfig

from setuptools import Extension, setup

FROZEN = Extension(
    "foldpoint.langgraph_adapter._frozen",
    ["src/foldpoint/langgraph_adapter/_frozen.c"],
    py_limited_api=True,
    optional=True,
)

# Without a lock around the interpreter there is no stable interface, and what is compiled relies on that lock.
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    setup()
else:
    setup(ext_modules=[FROZEN], options={"bdist_wheel": {"py_limited_api": "cp311"}})
