"""What a script of the hunt is: some clients of one pool, and what they do one after another. Scripts are values."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.hunt.spelling import Text

Argument = Text | bytes | str | int | None


@dataclass(frozen=True)
class Message:
    """One message of the protocol. What `arguments` means depends on `kind`; a Text among them is SQL."""

    kind: str
    arguments: tuple[Argument, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.kind, *(shown(argument) for argument in self.arguments)])


def shown(argument: Argument) -> str:
    """An argument as a line of text shows it; long runs of one letter are cut."""
    if isinstance(argument, Text):
        try:
            text = argument.encoded().decode("utf8")
        except UnicodeDecodeError:
            return repr(argument.encoded())
        text = repr(text) if any(not c.isprintable() for c in text) else text
        return re.sub(r"(.)\1{99,}", r"\1\1\1<...>", text)
    return repr(argument)


@dataclass(frozen=True)
class Say:
    """A client sends messages and gets all their answers. `cuts` (0 to 1): where the bytes are cut into several sends."""

    client: int
    messages: tuple[Message, ...]
    cuts: tuple[float, ...] = ()

    def __str__(self) -> str:
        cuts = f"   (in {len(self.cuts) + 1} sends)" if self.cuts else ""
        return f"client {self.client}: " + " | ".join(map(str, self.messages)) + cuts

    def simpler(self) -> Iterator["Say"]:
        """Ways to say it with less."""
        if self.cuts:
            yield replace(self, cuts=())
        if len(self.messages) > 1:
            for i in range(len(self.messages)):
                yield replace(self, messages=self.messages[:i] + self.messages[i + 1 :])
        for i, message in enumerate(self.messages):
            for j, argument in enumerate(message.arguments):
                if isinstance(argument, Text):
                    for text in argument.simpler():
                        less = replace(message, arguments=(*message.arguments[:j], text, *message.arguments[j + 1 :]))
                        yield replace(self, messages=(*self.messages[:i], less, *self.messages[i + 1 :]))


@dataclass(frozen=True)
class View:
    """A client looks at all that its session holds."""

    client: int

    def __str__(self) -> str:
        return f"client {self.client} looks at its session"


@dataclass(frozen=True)
class Leave:
    """A client leaves: with a word, or its connection breaks."""

    client: int
    abrupt: bool = False

    def __str__(self) -> str:
        return f"client {self.client} {'breaks off' if self.abrupt else 'leaves'}"


@dataclass(frozen=True)
class Probe:
    """Clean clients look at what they find: one that has just logged in, or one that did so before all others; `all`: both at once."""

    new: bool = True
    both: bool = False

    def __str__(self) -> str:
        return "probe: " + ("a new client and an old one" if self.both else "a new client" if self.new else "an old client")


@dataclass(frozen=True)
class Kill:
    """The administrator ends all of dualpool's server connections."""

    def __str__(self) -> str:
        return "all server connections are killed"


Step = Say | View | Leave | Probe | Kill


@dataclass(frozen=True)
class Script:
    """Steps of clients of a pool of `pool_size`. `logins`: which of the engine's kinds of login each client has; 0 is the plain one."""

    seed: str
    pool_size: int
    logins: tuple[int, ...]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """A line for each step."""
        kinds = {i: kind for i, kind in enumerate(self.logins) if kind and any(getattr(s, "client", None) == i for s in self.steps)}
        head = f"pool_size = {self.pool_size}" + "".join(f", client {i} with login {kind}" for i, kind in kinds.items())
        return "\n".join([head, *(f"  {i}. {step}" for i, step in enumerate(self.steps, 1))])


def size(script: Script) -> int:
    """How long and how odd it is, for comparing."""
    return sum(8 + (sum(map(weight, step.messages)) + len(step.cuts) if isinstance(step, Say) else 0) for step in script.steps)


def weight(message: Message) -> int:
    """How much there is to read, and how much of it is written oddly."""
    odd = sum(piece != piece.straightened() for text in message.arguments if isinstance(text, Text) for piece in text.pieces)
    return 10 + len(str(message)) + 10 * odd
