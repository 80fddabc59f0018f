"""The module under test in a process of its own: `serve` there, `Proxy` here; plain data crosses, code does not.

So a test cannot see which version it runs against but by calling it, and a module cannot touch the test that judges it.
What crosses: arguments, results, what a call changed in its arguments (lists, dicts, sets and bytearrays, one level),
whether the result is one of the arguments, iterators (item by item), exceptions (their names, bases and arguments).
"""

from __future__ import annotations

import builtins
import signal
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import NoReturn

from ratchet.sandbox.inside import frame
from ratchet.sandbox.inside.codec import CannotCross, decode, encode

Message = dict[str, object]


class Server:
    """The side of the module: answers until the test has gone."""

    def __init__(self, fd: int, names: Sequence[str]) -> None:
        """Only `names` are shown; none named shows all public ones."""
        self._fd, self._names = fd, names
        self._iterators: list[Iterator[object]] = []

    def serve(self, load: Callable[[], dict[str, object]]) -> NoReturn:
        """Load the module and answer calls; at the end wait to be killed, so that an end of its own is seen as one."""
        self.answer(load)
        while True:
            signal.pause()

    def answer(self, load: Callable[[], dict[str, object]]) -> None:
        """Load the module and answer calls until the test has gone."""
        failed: Message | None = None
        namespace: dict[str, object] = {}
        try:
            namespace = load()
        except BaseException as error:
            failed = _raised(error)
        while isinstance(message := frame.read(self._fd), dict):
            frame.write(self._fd, failed or self._answer(message, namespace))

    def _answer(self, message: Message, namespace: dict[str, object]) -> Message:
        try:
            match message["do"]:
                case "load":
                    return {"callable": [n for n, v in namespace.items() if self._shows(n) and _is_function(v)]}
                case "get":
                    return self._get(str(message["name"]), namespace)
                case "next":
                    return self._next(message["iterator"])
                case "call_all":
                    return {"answers": self._call_all(message, namespace)}
                case _:
                    return self._call(namespace[str(message["name"])], message["args"], message["kwargs"])
        except BaseException as error:
            return _raised(error)

    def _shows(self, name: str) -> bool:
        return name in self._names if self._names else not name.startswith("_")

    def _get(self, name: str, namespace: dict[str, object]) -> Message:
        if not self._shows(name) or name not in namespace:
            return {"missing": True}
        found = namespace[name]
        if isinstance(found, type) and issubclass(found, BaseException):
            return {"exception": _bases(found)}
        return {"callable": True} if callable(found) else {"value": encode(found)}

    def _call(self, function: object, args: object, kwargs: object) -> Message:
        given, named = decode(args), decode(kwargs)
        assert isinstance(given, list)
        assert isinstance(named, dict)
        result = function(*given, **named)  # type: ignore[operator]
        answer: Message = {}
        for place, (before, after) in enumerate(zip(args, given, strict=True)):  # type: ignore[call-overload]
            if isinstance(after, list | dict | set | bytearray):
                if result is after:
                    answer["same"] = place
                if (now := encode(after)) != before:
                    answer.setdefault("changed", []).append([place, now])  # type: ignore[attr-defined]
        if "same" not in answer:
            if isinstance(result, Iterator):
                self._iterators.append(result)
                answer["iterator"] = len(self._iterators) - 1
            else:
                answer["value"] = encode(result)
        return answer

    def _call_all(self, message: Message, namespace: dict[str, object]) -> list[Message]:
        """Answer calls up to the first that raises."""
        answers: list[Message] = []
        for args, kwargs in message["calls"]:  # type: ignore[attr-defined]
            one = {"do": "call", "name": message["name"], "args": args, "kwargs": kwargs}
            answers.append(self._answer(one, namespace))
            if "raised" in answers[-1]:
                break
        return answers

    def _next(self, iterator: object) -> Message:
        assert isinstance(iterator, int)
        try:
            return {"value": encode(next(self._iterators[iterator]))}
        except StopIteration:
            return {"end": True}


def _is_function(value: object) -> bool:
    return callable(value) and not (isinstance(value, type) and issubclass(value, BaseException))


def _bases(kind: type) -> list[str]:
    return [base.__name__ for base in kind.__mro__]


def _raised(error: BaseException) -> Message:
    try:
        arguments = encode(list(error.args))
    except CannotCross:
        arguments = []
    return {"raised": _bases(type(error)), "args": arguments}


class ModuleFailed(ImportError):
    """The module under test could not be loaded; `bases` are the names of what it raised."""

    bases: tuple[str, ...] = ()


class Proxy(ModuleType):
    """The module as the test sees it: its functions, its plain values, its exceptions; no source, no code."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _link.get(self.__name__, name)


class Client:
    """The side of the test."""

    def __init__(self, fd: int, on_lost: Callable[[str], NoReturn], wait: Callable[[], None] = lambda: None) -> None:
        """`on_lost` is called if the module's process ends or talks nonsense; `wait` before an answer is read."""
        self._fd, self._on_lost, self._wait = fd, on_lost, wait
        self._functions: frozenset[object] = frozenset()
        self._exceptions: dict[str, type[BaseException]] = {}
        self.seen: dict[int, BaseException] = {}
        """Exceptions that the module raised, by id: an assertion among them is not the test's."""
        self.crossed: str = ""
        """Set once a value could not cross: the test's verdict would then be about the border, not the module."""

    def load(self, name: str) -> Proxy:
        """Return the module. **Raises** `ModuleFailed`."""
        answer = self._ask({"do": "load"})
        if "raised" in answer:
            error = ModuleFailed(f"{name} could not be loaded: {_told(answer)}")
            error.bases = tuple(answer["raised"])  # type: ignore[arg-type]
            raise error
        functions = answer.get("callable")
        self._functions = (
            frozenset(f for f in functions if isinstance(f, str)) if isinstance(functions, list) else frozenset()
        )
        return Proxy(name)

    def get(self, module: str, name: str) -> object:
        """Return a function, value or exception of the module. **Raises** AttributeError."""
        if name in self._functions:  # of these it was told already
            return self._function(module, name)
        answer = self._ask({"do": "get", "name": name})
        if "missing" in answer:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        if "exception" in answer:
            return self._exception(answer["exception"])
        return self._function(module, name) if "callable" in answer else self._value(answer)

    def _function(self, module: str, name: str) -> Callable[..., object]:
        def function(*args: object, **kwargs: object) -> object:
            return self._call(name, list(args), kwargs)

        function.__name__ = function.__qualname__ = name
        function.__module__ = module
        return function

    def _call(self, name: str, args: list[object], kwargs: dict[str, object]) -> object:
        answer = self._ask({"do": "call", "name": name, "args": self._encode(args), "kwargs": self._encode(kwargs)})
        return self._returned(answer, args)

    def call_all(self, name: str, calls: Sequence[tuple[list[object], dict[str, object]]]) -> list[object]:
        """Return what each call returns; they are made in one go, up to the first that raises."""
        coded = [[self._encode(args), self._encode(kwargs)] for args, kwargs in calls]
        answers = self._ask({"do": "call_all", "name": name, "calls": coded}).get("answers")
        if not isinstance(answers, list):
            self._on_lost("nonsense")
        found = [self._returned(answer, args) for answer, (args, _) in zip(answers, calls, strict=False)]
        if len(found) != len(calls):
            self._on_lost("nonsense")
        return found

    def _returned(self, answer: Message, args: list[object]) -> object:
        """Return a call's result, and put into its arguments what the call changed in them."""
        value = self._value(answer)
        changed = answer.get("changed", [])
        for place, content in changed:  # type: ignore[attr-defined]
            _refill(args[place], decode(content))
        if "same" in answer:
            return args[answer["same"]]  # type: ignore[call-overload]
        return self._items(answer["iterator"]) if "iterator" in answer else value

    def _items(self, iterator: object) -> Iterator[object]:
        while "end" not in (answer := self._ask({"do": "next", "iterator": iterator})):
            yield self._value(answer)

    def _encode(self, value: object) -> object:
        try:
            return encode(value)
        except CannotCross as error:
            self.crossed = str(error)
            raise

    def _ask(self, message: Message) -> Message:
        try:
            frame.write(self._fd, message)
            self._wait()
            answer = frame.read(self._fd)
        except (OSError, frame.BadFrame) as error:
            self._on_lost(f"{type(error).__name__}")
        if not isinstance(answer, dict):
            self._on_lost("gone" if answer is None else "nonsense")
        return answer

    def _value(self, answer: Message) -> object:
        try:
            if "raised" not in answer:
                return decode(answer.get("value"))
            names, arguments = answer["raised"], decode(answer["args"])
            assert isinstance(names, list)
            assert isinstance(arguments, list)
            if "CannotCross" in names:
                self.crossed = _told(answer)
                raise CannotCross(self.crossed)
            error = self._error(names, arguments)
        except (ValueError, TypeError, KeyError, AssertionError, RecursionError):
            self._on_lost("nonsense")
        self.seen[id(error)] = error
        raise error

    def _error(self, names: list[str], arguments: list[object]) -> BaseException:
        kind = self._exception(names)
        if kind in (SystemExit, KeyboardInterrupt, GeneratorExit):
            self._on_lost("exit")
        error = kind.__new__(kind, *arguments)
        error.args = tuple(arguments)
        return error

    def _exception(self, names: object) -> type[BaseException]:
        assert isinstance(names, list)
        known = [getattr(builtins, name) for name in names if isinstance(getattr(builtins, name, None), type)]
        nearest: type[BaseException] = next(k for k in known if issubclass(k, BaseException))
        if nearest.__name__ == names[0]:
            return nearest
        if names[0] not in self._exceptions:
            self._exceptions[names[0]] = type(names[0], (nearest,), {})
        return self._exceptions[names[0]]


def _told(answer: Message) -> str:
    arguments = answer.get("args") or [""]
    return f"{answer['raised'][0]}: {arguments[0]}"  # type: ignore[index]


def _refill(old: object, new: object) -> None:
    if isinstance(old, list | bytearray):
        old[:] = new  # type: ignore[call-overload]
    elif isinstance(old, dict):
        old.clear()
        old.update(new)  # type: ignore[call-overload]
    elif isinstance(old, set):
        old.clear()
        old.update(new)  # type: ignore[arg-type]


_link: Client
"""Set by `connect`: a module cannot hold it, or a test could read it there."""


def connect(client: Client) -> None:
    global _link
    _link = client
