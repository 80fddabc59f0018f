"""Loads an environment by the name of its module."""

import importlib


def load_environment(env_id, **args):
    return importlib.import_module(env_id.replace("-", "_")).load_environment(**args)
