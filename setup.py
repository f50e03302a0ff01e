"""What is compiled; without a compiler Foldpoint is installed without it, and works in Python alone."""

import sysconfig

from setuptools import Extension, setup

SAME = "src/foldpoint/codecs/same.h"
COMPILED = [
    Extension(f"foldpoint.{name.replace('/', '.')}", [f"src/foldpoint/{name}.c"], depends=[SAME], optional=True)
    for name in ("codecs/_maps", "langgraph_adapter/_frozen")
]

# What is compiled relies on the lock around the interpreter.
setup(ext_modules=[] if sysconfig.get_config_var("Py_GIL_DISABLED") else COMPILED)
