"""Runs a script twice in step: each client has a twin on a connection of its own, and each answer is judged.

Clean clients (probes) look at what they find between the steps. A client that gets no server connection, because others keep theirs, is
left waiting; when its answer is needed the others are sent away one after another.
"""

import select
import time
from dataclasses import dataclass, field
from typing import Any, Final

from tests.hunt.script import Kill, Leave, Message, Probe, Say, Script, View
from tests.hunt.world import Difference, Session, Verdict, World

PATIENCE: Final = 0.03
"""Seconds after which a client without an answer is left waiting. More time changes the order of things, never the verdict."""
SETTLE: Final = 0.1
"""Seconds before one more client is sent away for one that must be answered."""
HANG: Final = 30.0
"""Seconds without an answer although all other clients are gone."""
DIRECT: Final = 8.0
"""Seconds in which a direct connection must answer: scripts in which clients wait for each other's locks are given up."""


class Found(Exception):
    """A difference."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


class Abandoned(Exception):
    """The script makes its clients wait for each other."""


@dataclass
class Twins:
    """A client on both sides. `due`: the direct one's answer while the other one's is awaited, and the step."""

    direct: Session
    pooled: Session
    due: tuple[Any, int] | None = None
    shaky: bool = False
    """Server connections were killed since its last answer, so that an error is none of dualpool's."""
    gone: bool = False
    told: bool = False
    """What the logins were told has been compared."""


@dataclass
class Prober:
    """A clean client. `due`: the step whose probe is awaited."""

    pooled: Session
    due: int | None = None
    asked: bool = False
    """False while it is still logging in."""
    shaky: bool = False
    once: bool = False


@dataclass
class Counts:
    """What was done."""

    scripts: int = 0
    answers: int = 0
    probes: int = 0
    excused: int = 0
    abandoned: int = 0
    kills: int = 0
    waited: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{value} {name}" for name, value in vars(self).items())


@dataclass
class Runner:
    """Runs scripts on the World's dualpool, which must be started."""

    world: World
    counts: Counts = field(default_factory=Counts)
    excuses: dict[str, int] = field(default_factory=dict)
    _clean: Any = None
    """What a probe is told by a connection of its own."""

    def run(self, script: Script) -> Difference | None:
        """The first difference that the script shows, if any."""
        self.counts.scripts += 1
        self.world.reset(str(script))
        run = _Run(self, script)
        try:
            run.run()
        except Found as found:
            return found.difference
        except Abandoned:
            self.counts.abandoned += 1
            self.world.kill("direct")  # what they wait for would come in the middle of the next script
        except ConnectionRefusedError as error:
            return Difference(run.step, "dualpool does not listen", "", str(error))
        finally:
            run.close()
        return None

    def clean_answer(self, *, again: bool = False) -> Any:
        """What a probe is told by a fresh session."""
        if self._clean is None or again:
            session = self.world.direct(0)
            session.read(DIRECT)
            session.send(self.world.probe)
            self._clean = session.read(DIRECT)
            session.close()
            if self._clean is None:
                raise Abandoned
        return self._clean


class _Run:
    """One run of one script."""

    def __init__(self, runner: Runner, script: Script) -> None:
        self.runner, self.world, self.script, self.counts = runner, runner.world, script, runner.counts
        self.step = 0
        self.killed = 0
        """The last step that ended server connections. (An answer that is judged later may be one that was there before.)"""
        self.twins: dict[int, Twins] = {}
        self.old: Prober | None = None
        self.waiting: list[Twins | Prober] = []

    def run(self) -> None:
        """All steps, and the end."""
        if any(isinstance(step, Probe) and (step.both or not step.new) for step in self.script.steps):
            self.old = Prober(self.world.pooled(0, self.script.pool_size))
            self.old.pooled.read(HANG)
        for number, step in enumerate(self.script.steps, 1):
            self.step = number
            if isinstance(step, Say):
                self._say(step.client, step.messages, step.cuts)
            elif isinstance(step, View):
                self._say(step.client, self.world.view, ())
            elif isinstance(step, Leave):
                self._leave(step)
            elif isinstance(step, Probe):
                self._probe(step)
            else:
                assert isinstance(step, Kill)
                self._kill()
        while self.waiting:
            self._settle(self.waiting[0])

    def close(self) -> None:
        """Everybody leaves."""
        for twins in self.twins.values():
            twins.direct.close()
            twins.pooled.close()
        for prober in (*self.waiting, *([self.old] if self.old else [])):
            prober.pooled.close()

    # ------------------------------------------------------------------------------------------------------ steps

    def _twins(self, client: int) -> Twins:
        twins = self.twins.get(client)
        if twins is None:
            kind = self.script.logins[client]
            twins = Twins(self.world.direct(kind), self.world.pooled(kind, self.script.pool_size))
            self.twins[client] = twins
            self._receive(twins, PATIENCE)
        if twins.due is not None:
            self._settle(twins)
        if not twins.told:
            twins.told = True
            if not twins.gone and (difference := self.world.log_in_differs(twins.direct, twins.pooled)):
                raise Found(Difference(self.step, "login", "", difference))
        return twins

    def _say(self, client: int, messages: tuple[Message, ...], cuts: tuple[float, ...]) -> None:
        twins = self._twins(client)
        if twins.gone:
            return
        twins.pooled.send(messages, cuts)
        twins.direct.send(messages)
        self._receive(twins, PATIENCE)

    def _receive(self, twins: Twins, seconds: float) -> None:
        """Both answers, and the verdict; or it has to wait."""
        direct = twins.direct.read(DIRECT)
        if direct is None:
            raise Abandoned
        self.counts.answers += 1
        pooled = self._answer(twins, seconds)
        if pooled is None:
            twins.due = (direct, self.step)
            self.waiting.append(twins)
            self.counts.waited += 1
        else:
            self._judge(twins, direct, pooled, self.step)

    def _judge(self, twins: Twins, direct: Any, pooled: Any, step: int) -> None:
        verdict, what, theirs, ours = self.world.judge(direct, pooled)
        if verdict is not Verdict.EQUAL and twins.shaky and (pooled.closed or pooled.errors):
            verdict = Verdict.PARTED
        elif verdict in (Verdict.EXCUSED, Verdict.PARTED):
            self.counts.excused += 1
            for error in pooled.errors:
                self.runner.excuses[str(error)[:200]] = self.runner.excuses.get(str(error)[:200], 0) + 1
        twins.shaky = twins.shaky and step <= self.killed
        if verdict is Verdict.DIFFERENT:
            log = f"\n    {self.world.log()}" if pooled.closed else ""
            raise Found(Difference(step, f"own view: {what}", theirs, ours + log))
        if verdict is Verdict.PARTED or pooled.closed:
            self._send_away(twins)

    def _leave(self, step: Leave) -> None:
        twins = self.twins.get(step.client)
        if twins is not None:
            self._send_away(twins, abrupt=step.abrupt)

    def _send_away(self, twins: Twins, *, abrupt: bool = False) -> None:
        twins.direct.close(abrupt=abrupt)
        twins.pooled.close(abrupt=abrupt)
        twins.gone, twins.due = True, None
        if twins in self.waiting:
            self.waiting.remove(twins)

    def _probe(self, step: Probe) -> None:
        for one in [one for one in self.waiting if isinstance(one, Prober)]:
            if not self._collect(one):
                return  # it will see what there is
        held: list[Prober] = []
        if not step.new or step.both:
            assert self.old is not None
            if self.old.pooled.closed:
                self.old = Prober(self.world.pooled(0, self.script.pool_size))
            if self.old.due is None and self._ask(self.old):
                held.append(self.old)
        if step.new or step.both:
            prober = Prober(self.world.pooled(0, self.script.pool_size), once=True)
            if self._ask(prober):
                held.append(prober)
        for prober in held:
            self._release(prober)

    def _ask(self, prober: Prober) -> bool:
        """Ask, and judge the answer; False if the prober has to wait for it."""
        prober.due = self.step
        answer = self._answer(prober, PATIENCE)  # of the login, if it is new
        if answer is not None and prober.once and prober.pooled.closed:
            raise Found(Difference(self.step, "login", "", str(answer.errors)))
        if answer is not None:
            prober.asked = True
            prober.pooled.send(self.world.probe)
            answer = self._answer(prober, PATIENCE)
        if answer is None:
            self.waiting.append(prober)
            self.counts.waited += 1
            return False
        self._judge_probe(prober, answer)
        return not prober.pooled.closed

    def _judge_probe(self, prober: Prober, pooled: Any) -> None:
        self.counts.probes += 1
        step, prober.due = prober.due or 0, None
        if prober.shaky and (pooled.closed or pooled.errors):
            prober.pooled.close()
            return
        prober.shaky = prober.shaky and step <= self.killed
        verdict, what, theirs, ours = self.world.judge(self.runner.clean_answer(), pooled)
        if verdict is Verdict.DIFFERENT:
            verdict, what, theirs, ours = self.world.judge(self.runner.clean_answer(again=True), pooled)
        if verdict is Verdict.DIFFERENT:
            raise Found(Difference(step, f"leak: {what}", theirs, ours))

    def _release(self, prober: Prober) -> None:
        if prober.pooled.closed:
            return
        prober.pooled.send(self.world.release)
        if prober.pooled.read(HANG) is None:
            raise Found(Difference(self.step, "hang", "", "a probe's release is not answered"))
        if prober.once:
            prober.pooled.close(abrupt=self.step % 2 == 0)

    def _kill(self) -> None:
        self.counts.kills += 1
        self.killed = self.step
        self.world.kill()
        for twins in self.twins.values():
            twins.shaky = True
        for prober in (*(p for p in self.waiting if isinstance(p, Prober)), *([self.old] if self.old else [])):
            prober.shaky = True

    # ------------------------------------------------------------------------------------------------------ waiting

    def _answer(self, one: Twins | Prober, seconds: float) -> Any:
        """Its answer, or None; those who wait for theirs are served meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            others = [other for other in self.waiting if other is not one]
            answer = one.pooled.read(0.0 if others else seconds)
            if answer is not None or not others:
                return answer
            ready = select.select([one.pooled, *(other.pooled for other in others)], [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                return None
            for other in others:
                if other.pooled in ready:
                    self._collect(other)

    def _collect(self, one: Twins | Prober) -> bool:
        """Take its answer if it is there."""
        answer = one.pooled.read(0.0)
        if answer is None:
            return False
        if isinstance(one, Prober) and not one.asked and not one.pooled.closed:
            one.asked = True
            one.pooled.send(self.world.probe)
            return False
        self.waiting.remove(one)
        if isinstance(one, Prober):
            self._judge_probe(one, answer)
            self._release(one)
        else:
            assert one.due is not None
            (direct, step), one.due = one.due, None
            self._judge(one, direct, answer, step)
        return True

    def _settle(self, one: Twins | Prober) -> None:
        """Wait for its answer; the others have to go, if need be."""
        others = [twins for twins in self.twins.values() if twins is not one and not twins.gone]
        seconds = SETTLE
        while one in self.waiting:
            deadline = time.monotonic() + seconds
            while one in self.waiting and (left := deadline - time.monotonic()) > 0:
                ready = select.select([other.pooled for other in self.waiting], [], [], left)[0]
                for other in [other for other in self.waiting if other.pooled in ready]:
                    if other in self.waiting:
                        self._collect(other)
            if one in self.waiting and others:
                self._send_away(others.pop(0))
                seconds = SETTLE if others else HANG
            elif one in self.waiting and seconds == HANG:
                step = one.due if isinstance(one, Prober) else one.due[1]
                raise Found(Difference(step, "hang", "", f"no answer in {HANG:g} s\n    {self.world.log()}"))
            elif not others:
                seconds = HANG
