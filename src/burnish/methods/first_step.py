"""`--lazy_tokenise`: the first step begun while the rows behind it are still tokenised.

The run is built of the rows that the first epoch begins with, and computes the step's gradients. When all rows are
there, either the whole set begins with the very same groups, and the run takes the others in; or everything that was
made of the rows is let go, and made again of the whole set. So what follows is the eager run either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from burnish.console import notice
from burnish.data.groups import PromptGroup
from burnish.engine.begun_step import BegunStep, begin_step, equal_groups
from burnish.engine.invariants import start_check
from burnish.engine.method import Method
from burnish.methods.loop_building import build_passes
from burnish.methods.opening import Inputs, Opened
from burnish.methods.reference import has_given_reference, let_go_if_known
from burnish.methods.session import Session, assemble_session, build_sampler, check_rows


@dataclass(slots=True)
class FirstStep:
    """A run that may begin before all its rows are there."""

    config: Any
    inputs: Inputs
    method: Method
    session: Session | None = None
    """Built of the first rows alone; None where the step was not begun."""
    begun: BegunStep | None = None
    has_used_start: bool = False
    """Whether the policy's start went into this run, so that another run needs a new one."""

    def begin(self, opened: Opened) -> None:
        """Build the run of its first rows, and compute the first step's gradients; where it cannot, a line says why.

        Args:
            opened: with the first rows for all there are. The policy's start is then used up.
        """
        why = self._obstacle(opened)
        if why is None:
            try:
                self._begin(opened)
            except Exception as error:  # the run meets it again, with all its rows
                self.session = self.begun = None
                why = (
                    f"beginning it failed ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
                )
        if why is not None:
            notice(f"--lazy_tokenise: the first step waits for all rows, since {why}")

    def _obstacle(self, opened: Opened) -> str | None:
        if opened.device.is_accelerator and self.config.max_tokens_per_micro_batch is None:
            return "the token budget depends on the longest (--max_tokens_per_micro_batch sets it)"
        if opened.precision.name == "fp16":
            return "fp16 scales losses"
        if opened.train.groups.has("ref_logps"):
            return "they bring the reference's log-probabilities"
        return None

    def _begin(self, opened: Opened) -> None:
        self.has_used_start = True
        session = assemble_session(self.config, self.inputs, self.method, opened, is_whole=False)
        passes = build_passes(session, self.method, session.accelerator)
        check = start_check(session.reference, session.model, self.method)
        self.begun = begin_step(passes, _first_groups(session), session.device, check)
        self.session = session

    def complete(self, opened: Opened) -> Session | None:
        """Take all rows into the run that was built of the first ones.

        Args:
            opened: with all rows.

        Returns:
            The run, as it would have been built of all rows; None where it has to be.

        Raises:
            ConfigError, DataError: as assemble_session, over all rows.
        """
        session, self.session = self.session, None
        if session is None or self.begun is None:
            return None
        session.train, session.held_out = opened.train, opened.held_out
        session.sampler = build_sampler(self.config, opened.train, session.ranks)
        is_given = has_given_reference(self.config, self.method, opened.stores)
        if is_given or not equal_groups(_first_groups(session), self.begun.groups):
            self.begun = None
            return None
        check_rows(self.config, session.model, opened)
        let_go_if_known(session.reference, self.method, opened.stores)
        session.begun = self.begun
        return session


def _first_groups(session: Session) -> list[PromptGroup]:
    return [session.train.groups[int(index)] for index in session.sampler.groups_of(0)]
