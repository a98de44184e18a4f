"""The ``native`` backend: C++ without any dependency, compiled when the package is installed."""
