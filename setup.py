"""The one part that is compiled; without a compiler Foldpoint is installed without it, and works in Python alone."""

import sysconfig

from setuptools import Extension, setup

FROZEN = Extension(
    "foldpoint.langgraph_adapter._frozen",
    ["src/foldpoint/langgraph_adapter/_frozen.c"],
    optional=True,
)

# What is compiled relies on the lock around the interpreter.
setup(ext_modules=[] if sysconfig.get_config_var("Py_GIL_DISABLED") else [FROZEN])
