"""The endpoints of a pool: who may be asked, who is next, and how those that failed come back. Asks no questions itself
but one: whoever is new or has failed gets no work until it has described itself as the teacher that is meant.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from trainer.errors import TeacherMismatch, TeacherUnavailable
from trainer.teacher.endpoint import Endpoint, EndpointError, Trouble
from trainer.teacher.member import Call, Counts, Member, State
from trainer.teacher.places import Place
from trainer.teacher.protocol import Description

PROBE_S = 2.0  # how long one endpoint may take to say who it is


class Members:
    """Thread-safe; `changed` guards everything and is told whenever it may be worth another look."""

    def __init__(self, connect: Callable[[Place], Endpoint], say: Callable[[str], None], digest: str = "") -> None:
        """`digest` of the teacher to ask for where an endpoint has several."""
        self.changed = threading.Condition(threading.RLock())
        self.counts: dict[str, Counts] = {}  # by name, also of those that left
        self._connect, self._say, self._digest = connect, say, digest
        self._all: dict[Place, Member] = {}
        self._meant: Description | None = None
        self._turns = itertools.count(1)
        self._closed = threading.Event()
        self._probes: list[threading.Thread] = []

    @property
    def meant(self) -> Description:
        """The teacher that is asked, with limits that all its endpoints keep."""
        assert self._meant is not None, "settle comes first"
        return self._meant

    @property
    def count(self) -> int:
        """Of those that belong to it now, well or not."""
        with self.changed:
            return len(self._all)

    def keep_to(self, places: Iterable[Place]) -> None:
        """Adds the new ones; those that are not among them get no new calls and are closed after their last one."""
        wanted = list(places)
        with self.changed:
            gone = [self._all.pop(place) for place in set(self._all) - set(wanted)]
            for member in gone:
                member.leaving = True
            for place in wanted:
                if place not in self._all and not self._closed.is_set():
                    counts = self.counts.setdefault(str(place), Counts())
                    self._all[place] = Member(str(place), self._connect(place), counts)
                    self._bring_back(self._all[place])
            self._all = {place: self._all[place] for place in wanted if place in self._all}
            self.changed.notify_all()
            idle = [member for member in gone if not member.outstanding]
        for member in idle:
            member.endpoint.close()

    def settle(self, seconds: float, complaint: Callable[[], str]) -> None:
        """Waits until one endpoint has described itself, and all have been asked once; they must agree.

        Raises TeacherUnavailable, TeacherMismatch or BadInput.
        """
        with self.changed:
            self.changed.wait_for(self._settled, seconds)
            for member in self._all.values():
                if member.error and member.error.trouble in (Trouble.MISTAKE, Trouble.OTHER):
                    raise member.error.for_user()
            found = [(member.name, member.described) for member in self._all.values() if member.described]
            if not found:
                raise TeacherUnavailable(complaint())
            (first, meant), *others = found
            for name, other in others:
                if not _same(meant, other):
                    raise TeacherMismatch(
                        f"endpoints serve different teachers: {first} has {_who(meant)}, {name} has {_who(other)}"
                    )
            meant.check()
            self._meant, self._digest = meant, meant.digest
            for member in self._all.values():
                if member.described:
                    self._join(member, member.described)

    def take(self) -> Call | None:
        """A call to the least busy endpoint, in turn where several are; None when nobody may be asked."""
        now = time.monotonic()
        with self.changed:
            ready = [each for each in self._all.values() if each.state is State.READY and each.full_until <= now]
            if not ready:
                return None
            chosen = min(ready, key=lambda member: (member.outstanding, member.turn))
            chosen.turn = next(self._turns)
            chosen.outstanding += 1
            chosen.counts.calls += 1
            return Call(chosen, now)

    def answered(self, call: Call) -> None:
        with self.changed:
            call.member.answered()
            self.let_go(call)

    def failed(self, call: Call, error: EndpointError) -> None:
        """What the failure of a call means for its endpoint. A mistake of ours means nothing."""
        member = call.member
        with self.changed:
            if error.trouble is Trouble.FULL:
                member.refused(error)
            elif error.trouble is not Trouble.MISTAKE:
                member.counts.failures += 1
                # Of calls that fail together only the first one counts.
                if member.state is State.READY and call.begun >= member.since and not member.leaving:
                    member.put_out(error)
                    self._bring_back(member)
            self.let_go(call)

    def let_go(self, call: Call) -> None:
        """The call is over, whatever came of it."""
        with self.changed:
            call.member.outstanding -= 1
            last = call.member.leaving and not call.member.outstanding
            self.changed.notify_all()
        if last:
            call.member.endpoint.close()

    def hopeful(self) -> bool:
        """Whether somebody is well, or failed but once and may be well at the next look."""
        with self.changed:
            return any(
                each.state is State.READY or (each.state is State.OUT and each.failures < 2)
                for each in self._all.values()
            )

    def mismatch(self) -> TeacherMismatch | None:
        """When all who ever answered are another teacher."""
        with self.changed:
            heard = [member for member in self._all.values() if member.described or member.state is State.OTHER]
            if heard and all(member.state is State.OTHER for member in heard) and heard[0].error:
                return TeacherMismatch(heard[0].error.message)
        return None

    def complaint(self) -> str:
        """Why nobody may be asked, naming all endpoints; empty where there are none."""
        with self.changed:
            members = list(self._all.values())
            full = [member for member in members if member.state is State.READY]
            blamed = full or [member for member in members if member.state is State.OUT] or members
            reasons = {member.error.message: None for member in blamed if member.error}
        if not blamed:
            return ""
        names = ", ".join(member.name for member in blamed)
        what = "too many wait for the teacher at" if full else "no teacher answers at"
        return f"{what} {names} ({'; '.join(reasons) or 'it says nothing'})"

    def close(self) -> None:
        """Ends all calls and probes."""
        self._closed.set()
        with self.changed:
            members, probes = list(self._all.values()), list(self._probes)
            self.changed.notify_all()
        for member in members:
            member.endpoint.close()
        for probe in probes:
            probe.join(PROBE_S)

    def _bring_back(self, member: Member) -> None:
        probe = threading.Thread(target=self._probe, args=(member,), name=f"probe {member.name}", daemon=True)
        self._probes = [each for each in self._probes if each.is_alive()] + [probe]
        probe.start()

    def _probe(self, member: Member) -> None:
        """Asks a member who it is, at growing distances, until it may work."""
        while not self._closed.wait(member.pause_s) and not member.leaving:
            found = self._described(member)
            with self.changed:
                self.changed.notify_all()
                if isinstance(found, EndpointError):
                    member.put_out(found)
                    if found.trouble is Trouble.OTHER and self._meant:
                        self._tell(member, f"{found.message}: it is not used")
                    continue
                member.described = found
                if self._meant is None or self._join(member, found):
                    return

    def _described(self, member: Member) -> Description | EndpointError:
        """Whatever goes wrong, the next probe may go well: nothing may end them."""
        try:
            return member.endpoint.describe(PROBE_S, self._digest)
        except EndpointError as error:
            return error
        except Exception as error:
            return EndpointError(Trouble.LOST, f"{type(error).__name__}: {error}")

    def _join(self, member: Member, described: Description) -> bool:
        """Lets a member work if it is the teacher that is meant; otherwise says so, once for each other teacher."""
        meant = self.meant
        if _same(meant, described):
            self._meant = replace(meant, limits=meant.limits.within(described.limits))
            member.enter(State.READY)
            return True
        text = f"the teacher at {member.name} is {_who(described)}, not {_who(meant)}: it is not used"
        self._tell(member, text)
        member.put_out(EndpointError(Trouble.OTHER, text))
        return False

    def _tell(self, member: Member, text: str) -> None:
        if member.reported != text:
            self._say(text)
        member.reported = text

    def _settled(self) -> bool:
        members = list(self._all.values())
        asked = all(member.described or member.error for member in members)
        refused = any(each.error and each.error.trouble in (Trouble.MISTAKE, Trouble.OTHER) for each in members)
        return self._closed.is_set() or refused or (asked and any(member.described for member in members))


def _same(one: Description, other: Description) -> bool:
    """Labels of two compute types differ, so they do not mix."""
    return (one.digest, one.compute_type) == (other.digest, other.compute_type)


def _who(described: Description) -> str:
    return f"{described.digest} ({described.compute_type})"
