"""The one error that the lab shows to a person: what is wrong, and what to do next."""

from __future__ import annotations


class LabError(Exception):
    """Say in one line what stopped the lab and the next step."""

    def __init__(self, problem: str, next_step: str = "") -> None:
        self.problem = problem
        self.next_step = next_step
        super().__init__(f"{problem}; {next_step}" if next_step else problem)
