"""The one part that is compiled; without a compiler Foldpoint is installed without it, and works in Python alone."""

from setuptools import Extension, setup

FROZEN = Extension(
    "foldpoint.langgraph_adapter._frozen",
    ["src/foldpoint/langgraph_adapter/_frozen.c"],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[FROZEN], options={"bdist_wheel": {"py_limited_api": "cp310"}})
