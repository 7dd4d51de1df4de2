"""What the pages compare: read from an address, and said again as Python and as a command."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tssan_dash.conditions import checked
from tssan_viz.errors import UserError

if TYPE_CHECKING:
    from tssan_viz.selection import Selection
    from tssan_viz.store import AttentionStore

T = TypeVar("T")

# What groups can be made of, and how a person calls it.
GROUPED = {"camera": "Cameras", "subject": "Subjects", "correct": "Right or wrong", "step": "Steps"}


@dataclass(frozen=True)
class Asked:
    """A question about one run.

    Attributes
    ----------
    run
        Its name.
    class_name, with_class
        A class, and what it is compared with; None is every other class. With `by` the class that
        is looked at alone; None is all.
    by
        One of `GROUPED`, to compare groups instead of classes.
    a, b
        The values of the two groups; none in `b` are all others.
    subjects, cameras, correct, step, where
        Which rows take part; empty or None is no condition.
    """

    run: str
    class_name: str | None = None
    with_class: str | None = None
    by: str | None = None
    a: tuple[str, ...] = ()
    b: tuple[str, ...] = ()
    subjects: tuple[int, ...] = ()
    cameras: tuple[int, ...] = ()
    correct: bool | None = None
    step: int | None = None
    where: str = ""

    @classmethod
    def of(cls, store: AttentionStore, run: str, query: Mapping[str, str]) -> Asked:
        """Read the question of an address.

        Raises
        ------
        UserError
            Something in it does not exist or cannot be read; names the nearest that does.
        """
        catalogue = store.catalogue(run)
        query = {name: value.strip() for name, value in query.items() if value.strip()}
        by = query.get("by")
        if by is not None and by not in GROUPED:
            raise UserError(f"groups are of {', '.join(GROUPED)}, not of {by!r}")
        named = [query.get(name) for name in ("class", "with")]
        class_name, with_class = (n and catalogue.resolve(n).name for n in named)
        if class_name is None and by is None:
            recorded = set(store.rows(run)["label"].dropna().astype(int))
            first = [c.name for c in catalogue.classes if c.label in recorded][:1]
            if not first:
                raise UserError(
                    f"The run {run!r} was recorded without class names: choose groups to compare."
                )
            class_name = first[0]
        correct = query.get("correct")
        if correct not in (None, "true", "false"):
            raise UserError(f"correct is true or false, not {correct!r}")
        steps = _numbers(query, "step")
        where = query.get("where", "")
        if where:
            checked(where, store.rows(run).columns)
        return cls(
            run=run,
            class_name=class_name,
            with_class=None if by else with_class,
            by=by,
            a=_values(query, "a") if by else (),
            b=_values(query, "b") if by else (),
            subjects=_numbers(query, "subjects"),
            cameras=_numbers(query, "cameras"),
            correct=None if correct is None else correct == "true",
            step=steps[0] if steps else None,
            where=where,
        )

    def query(self) -> dict[str, str]:
        """Return the parameters of the address that asks this."""
        given = {
            "run": self.run,
            "class": self.class_name,
            "with": self.with_class,
            "by": self.by,
            "a": ",".join(self.a),
            "b": ",".join(self.b),
            "subjects": ",".join(map(str, self.subjects)),
            "cameras": ",".join(map(str, self.cameras)),
            "correct": None if self.correct is None else str(self.correct).lower(),
            "step": None if self.step is None else str(self.step),
            "where": self.where,
        }
        return {name: value for name, value in given.items() if value}

    def plain(self) -> dict[str, Any]:
        """Return it as JSON keeps it."""
        return asdict(self)

    @property
    def groups(self) -> list[str]:
        """The groups as `tssan_viz.compare` takes them."""
        return [f"{self.by}:{','.join(values)}" for values in (self.a, self.b) if values]

    def conditions(self, store: AttentionStore) -> dict[str, Any]:
        """Return the conditions of the rows that take part, as `AttentionStore.select` has them."""
        found: dict[str, Any] = {"run": self.run}
        if self.subjects:
            found["subject"] = list(self.subjects)
        if self.cameras:
            found["camera"] = list(self.cameras)
        if self.correct is not None:
            found["correct"] = self.correct
        if self.step is not None:
            found["step"] = self.step
        if self.where:
            found["where"] = checked(self.where, store.rows(self.run).columns)
        return found

    def rows(self, store: AttentionStore) -> Selection:
        """Select the rows that take part.

        Raises
        ------
        UserError
            There are none; says which condition left none.
        """
        selection = store.select(**self.conditions(store))
        if not len(selection):
            raise UserError(f"There is nothing to compare: {selection.empty_because}.")
        return selection

    def comparing(self) -> dict[str, Any]:
        """Return what `tssan_viz.compare` is given beside the rows."""
        found: dict[str, Any] = {}
        if self.class_name is not None:
            found["class_name"] = self.class_name
        if self.with_class is not None:
            found["with_class"] = self.with_class
        if self.groups:
            found["groups"] = self.groups
        elif self.by is not None:
            found["by"] = self.by
        return found

    def python(self, store: AttentionStore) -> str:
        """Return the lines of Python that give the same numbers."""
        return "\n".join(
            [
                "import tssan_viz",
                f"store = tssan_viz.open_store({store.url!r})",
                f"rows = store.select({_arguments(self.conditions(store))})",
                f"comparison = tssan_viz.compare(rows, {_arguments(self.comparing())})",
                "comparison.table",
            ]
        )

    def command(self, store: AttentionStore) -> str:
        """Return the command that gives the same numbers."""
        words = ["tssan-viz", "compare", "--store", store.url, "--run", self.run]
        given = self.comparing()
        for option, name in (("--class", "class_name"), ("--with", "with_class"), ("--by", "by")):
            if name in given:
                words += [option, given[name]]
        for group in self.groups:
            words += ["--group", group]
        if self.subjects:
            words += ["--subjects", ",".join(map(str, self.subjects))]
        conditions = self.conditions(store)
        where = [f"camera IN ({', '.join(map(str, self.cameras))})"] if self.cameras else []
        if self.correct is not None:
            where.append("correct" if self.correct else "NOT correct")
        if self.step is not None:
            where.append(f"step = {self.step}")
        if "where" in conditions:
            where.append(conditions["where"])
        if where:
            words += ["--where", " AND ".join(where)]
        return shlex.join([*words, "--csv", "comparison.csv", "--figure", "comparison.pdf"])


def asked_in(
    read: Callable[[AttentionStore, str, Mapping[str, str]], T],
    store: AttentionStore,
    question: Mapping[str, Any],
) -> T:
    """Read a question that has been in a browser, as `read` reads an address."""
    query = {str(name): str(value) for name, value in question["query"].items()}
    return read(store, store.checked_run(query.get("run")), query)


def readable(
    read: Callable[[AttentionStore, str, Mapping[str, str]], T],
    store: AttentionStore,
    run: str,
    query: Mapping[str, str],
) -> tuple[T, set[str]]:
    """Read of an address what can be read of it, for the controls to show beside the complaint.

    Returns
    -------
    asked
        What `read` makes of the parameters that can be read.
    left_out
        The names of the others.

    Raises
    ------
    UserError
        Not even nothing can be asked of the run.
    """
    try:
        return read(store, run, query), set()
    except UserError as error:
        fault = error
    kept: dict[str, str] = {}
    for name, value in query.items():
        try:
            read(store, run, kept | {name: value})
        except UserError:
            continue
        kept[name] = value
    try:
        return read(store, run, kept), set(query) - set(kept)
    except UserError:
        raise fault from None


def whole_number(
    query: Mapping[str, str], name: str, there: Sequence[int], first: int, whose: str
) -> int:
    """Read one of some numbers from an address.

    Parameters
    ----------
    query, name
        The parameters, and which of them.
    there
        The numbers there are.
    first
        What is meant where nothing is said.
    whose
        Of what they are, as a sentence begins with it.

    Raises
    ------
    UserError
        Another one; says which there are.
    """
    text = query.get(name, "").strip()
    if not text:
        return first
    if text not in map(str, there):
        raise UserError(f"{whose} has no {name} {text!r}; it has {', '.join(map(str, there))}.")
    return int(text)


def _arguments(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


def _values(query: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in query.get(name, "").split(",") if part.strip())


def _numbers(query: Mapping[str, str], name: str) -> tuple[int, ...]:
    values = _values(query, name)
    for value in values:
        # Longer ones are no number of anything here, and would overflow where they are compared.
        if not (value.isascii() and value.isdecimal() and len(value) < 10):
            raise UserError(f"{name} takes numbers like 1,3, not {query[name]!r}")
    return tuple(sorted({int(value) for value in values}))
