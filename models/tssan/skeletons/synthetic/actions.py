"""The actions: for each class of NTU RGB+D that is acted here, the script of its one or two people.

All are written for a right-handed person of the reference stature; a left-handed one does the same
mirrored. What a person does differently from others every time (`Manner.habit`) and what differs
from time to time (`Manner.now`) is drawn where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tssan.skeletons.synthetic.script import Hand, Key, Script, Shake, hanging


@dataclass(frozen=True)
class Manner:
    """A person's way of doing one action: `own` is the same in all trials, `trial` is not.

    Without `trial`, every performance is the one that the person has in mind.
    """

    own: np.random.Generator
    trial: np.random.Generator | None

    def habit(self, low: float, high: float) -> float:
        """Draw what this person always does the same way, uniformly."""
        return float(self.own.uniform(low, high))

    def now(self, centre: float, spread: float) -> float:
        """Draw what comes out a little different every time (normal, cut at 2 spreads)."""
        if self.trial is None:
            return centre
        return centre + spread * float(np.clip(self.trial.normal(), -2, 2))


K = TypeVar("K", Hand, Key)

UP = (0.8, -0.9, -0.1)
BACK = (0.7, 0.1, -0.8)
DOWN = (0.5, -1.0, -0.1)


def drink_water(m: Manner) -> list[Script]:
    """Lift a cup to the mouth, tilt the head back, put the cup away."""
    lift = m.now(m.habit(0.27, 0.36), 0.02)
    away = m.now(m.habit(0.66, 0.76), 0.02)
    tilt = -m.habit(10, 24)
    return [
        Script(
            seconds=m.habit(2.2, 2.8),
            hands={
                "right": [
                    hanging(0.0),
                    Hand(0.55 * lift, "chest", 0.13, -0.30, 0.30, DOWN),
                    Hand(lift, "head", 0.06, -0.11, 0.15, DOWN),
                    Hand(lift + 0.12, "head", 0.06, -0.09, 0.14, UP),
                    Hand(away, "head", 0.06, -0.09, 0.14, UP),
                    Hand(away + 0.16, "chest", 0.14, -0.31, 0.30, DOWN),
                    hanging(1.0),
                ]
            },
            head=[
                Key(lift - 0.05, (0, 4, 0)),
                Key(lift + 0.14, (0, tilt, 0)),
                Key(away, (0, tilt, 0)),
                Key(away + 0.14, (0, 4, 0)),
            ],
            chest=[Key(lift, (0, 0, 0)), Key(lift + 0.14, (0, -3, 0)), Key(away + 0.1, (0, 0, 0))],
        )
    ]


def throw(m: Manner) -> list[Script]:
    """Step forward, wind up and throw overarm."""
    wind = m.now(m.habit(0.34, 0.44), 0.02)
    release = wind + m.habit(0.13, 0.18)
    high = m.habit(0.02, 0.20)
    return [
        Script(
            seconds=m.habit(1.7, 2.1),
            hands={
                "right": [
                    hanging(0.0),
                    Hand(0.5 * wind, "chest", 0.22, -0.30, 0.22),
                    Hand(wind, "chest", 0.40, high, -0.20, (0.9, -0.2, -0.5)),
                    Hand(release, "chest", 0.10, 0.16, 0.52, (0.9, -0.2, 0.1)),
                    Hand(release + 0.12, "chest", -0.14, -0.42, 0.36, (0.9, 0.0, -0.2)),
                    hanging(1.0),
                ],
                "left": [
                    hanging(0.0),
                    Hand(wind, "chest", 0.20, -0.16, 0.40),
                    Hand(release, "chest", 0.32, -0.38, 0.02),
                    hanging(1.0),
                ],
            },
            chest=[
                Key(0.0, (0, 0, 0)),
                Key(wind, (-32, -7, -4)),
                Key(release + 0.04, (26, 14, 3)),
                Key(release + 0.2, (18, 12, 2)),
                Key(1.0, (0, 0, 0)),
            ],
            hips=[
                Key(0.0, (0, 0, 0)),
                Key(wind, (-14, 0, 0)),
                Key(release, (12, 2, 0)),
                Key(1.0, (0, 0, 0)),
            ],
            pelvis=[
                Key(0.0, (0, 0, 0)),
                Key(wind, (-0.03, -0.02, -0.05)),
                Key(release, (0.02, -0.04, 0.14)),
                Key(release + 0.2, (0.02, -0.04, 0.14)),
                Key(1.0, (0, 0, 0)),
            ],
            feet={
                "left": [
                    Key(0.3 * wind, (0, 0, 0)),
                    Key(0.75 * wind, (0.0, 0.06, 0.12)),
                    Key(1.1 * wind, (0.0, 0, 0.24)),
                    Key(release + 0.22, (0.0, 0, 0.24)),
                    Key(release + 0.31, (0.0, 0.05, 0.12)),
                    Key(release + 0.40, (0, 0, 0)),
                ]
            },
        )
    ]


def sitting_down(m: Manner) -> list[Script]:
    """Bow, reach back with the hips, sit, lay the hands on the thighs."""
    lean = m.habit(24, 40)
    low = m.habit(-0.47, -0.40)
    sit = m.now(m.habit(0.58, 0.70), 0.03)
    begin = m.now(0.16, 0.03)
    bow = 0.5 * (begin + sit)
    rest = m.habit(-0.02, 0.05)
    hands = [
        hanging(0.0),
        Hand(bow, "hip", 0.26, 0.0, 0.22),
        Hand(sit + 0.12, "hip", 0.13, 0.11, 0.32 + rest),
    ]
    return [
        Script(
            seconds=m.habit(2.0, 2.5),
            hands={"left": hands, "right": hands},
            pelvis=[
                Key(begin, (0, 0, 0)),
                Key(bow, (0, 0.45 * low, -0.27)),
                Key(sit, (0, low, -0.40)),
            ],
            hips=[Key(begin, (0, 0, 0)), Key(bow, (0, 0.5 * lean, 0)), Key(sit, (0, -3, 0))],
            chest=[
                Key(begin - 0.05, (0, 0, 0)),
                Key(bow, (0, 0.7 * lean, 0)),
                Key(sit, (0, 0.4 * lean, 0)),
                Key(min(sit + 0.2, 0.98), (0, 3, 0)),
            ],
            head=[Key(begin, (0, 0, 0)), Key(bow, (0, -0.5 * lean, 0)), Key(sit, (0, 0, 0))],
        )
    ]


def standing_up(m: Manner) -> list[Script]:
    """Undo `sitting_down`."""
    (script,) = sitting_down(m)
    return [reverse(script)]


def clapping(m: Manner) -> list[Script]:
    """Bring both hands together again and again in front of the chest."""
    height = m.habit(-0.32, -0.10)
    forward = m.habit(0.24, 0.34)
    wide = m.now(m.habit(0.045, 0.12), 0.008)
    begin, end = m.now(0.20, 0.03), m.now(0.82, 0.03)
    hertz = m.now(m.habit(1.7, 2.7), 0.12)
    hands = [
        hanging(0.0),
        Hand(begin, "chest", 0.035 + wide, height, forward, DOWN),
        Hand(end, "chest", 0.035 + wide, height, forward, DOWN),
        hanging(1.0),
    ]
    return [
        Script(
            seconds=m.habit(2.0, 2.7),
            hands={"left": hands, "right": hands},
            shakes=[
                Shake(side, begin, end, hertz, (wide, 0.02 * sign, 0.0), 0.25)
                for side, sign in (("left", 1), ("right", -1))
            ],
        )
    ]


def reading(m: Manner) -> list[Script]:
    """Hold a book open, follow the lines with the head, turn one page."""
    up = m.now(m.habit(0.18, 0.26), 0.02)
    height = m.habit(-0.28, -0.12)
    forward = m.habit(0.26, 0.36)
    bow = m.habit(14, 30)
    turn = m.now(m.habit(0.48, 0.66), 0.03)
    left = Hand(up, "chest", 0.11, height, forward, DOWN)
    right = Hand(up, "chest", 0.11, height, forward, DOWN)
    return [
        Script(
            seconds=m.habit(2.7, 3.2),
            hands={
                "left": [hanging(0.0), left, replace(left, phase=0.86), hanging(1.0)],
                "right": [
                    hanging(0.0),
                    right,
                    replace(right, phase=turn - 0.09),
                    # A page is turned: the hand lifts it and lays it over to the other side.
                    Hand(turn - 0.02, "chest", 0.02, height + 0.07, forward + 0.01, DOWN),
                    Hand(turn + 0.05, "chest", -0.07, height + 0.03, forward + 0.02, DOWN),
                    replace(right, phase=turn + 0.15),
                    replace(right, phase=0.86),
                    hanging(1.0),
                ],
            },
            head=[
                Key(0.06, (0, 0, 0)),
                Key(up, (5, bow, 0)),
                Key(0.45 * (up + turn), (-6, bow, 0)),
                Key(turn, (5, bow, 0)),
                Key(0.85, (-5, bow, 0)),
                Key(0.97, (0, 0, 0)),
            ],
        )
    ]


def put_on_jacket(m: Manner) -> list[Script]:
    """Slip one arm into its sleeve, find the other sleeve behind the back, straighten."""
    reach = m.habit(0.46, 0.56)
    behind = m.habit(0.05, 0.20)
    early = m.now(0.0, 0.012)
    late = m.now(0.0, 0.012)
    tug = m.habit(-0.32, -0.22)
    script = Script(
        seconds=m.habit(2.8, 3.2),
        hands={
            "right": [
                Hand(0.00, "chest", 0.10, -0.30, 0.33, DOWN),
                Hand(0.08, "chest", 0.11, -0.28, 0.32, DOWN),
                # Into the first sleeve, out to the side and back.
                Hand(0.18 + early, "chest", 0.34, -0.33, 0.20, BACK),
                Hand(0.30 + early, "chest", reach, -0.12, -0.10, BACK),
                Hand(0.40 + early, "chest", 0.22, -0.08, 0.20, DOWN),
                # Holds the jacket at the other shoulder while the second sleeve is found.
                Hand(0.52, "chest", -0.10, -0.04, 0.19, DOWN),
                Hand(0.68 + late, "chest", -0.14, -0.02, 0.17, DOWN),
                Hand(0.80 + late, "chest", 0.08, -0.14, 0.21, DOWN),
                Hand(0.90, "chest", 0.10, tug, 0.24, DOWN),
                hanging(1.0),
            ],
            "left": [
                Hand(0.00, "chest", 0.10, -0.30, 0.33, DOWN),
                Hand(0.08, "chest", 0.09, -0.28, 0.33, DOWN),
                # Pulls the collar up over the first shoulder.
                Hand(0.18 + early, "chest", -0.14, -0.22, 0.22, DOWN),
                Hand(0.30 + early, "chest", -0.17, 0.02, 0.13, UP),
                Hand(0.40 + early, "chest", 0.18, -0.20, 0.20, DOWN),
                # Behind the back, into the second sleeve, out of it.
                Hand(0.47, "hip", 0.32, 0.12, -0.04, BACK),
                Hand(0.54, "hip", 0.10, behind, -0.24, (1.0, 0.1, -0.5)),
                Hand(0.63 + late, "hip", 0.36, 0.10, -0.26, BACK),
                Hand(0.72 + late, "chest", reach, -0.16, 0.08, BACK),
                Hand(0.81 + late, "chest", 0.08, -0.14, 0.21, DOWN),
                Hand(0.90, "chest", 0.10, tug, 0.24, DOWN),
                hanging(1.0),
            ],
        },
        chest=[
            Key(0.08, (0, 4, 0)),
            Key(0.28 + early, (-16, 2, -6)),
            Key(0.40, (0, 3, 0)),
            Key(0.58 + late, (20, 9, 5)),
            Key(0.72 + late, (9, 2, 3)),
            Key(0.84, (0, 2, 0)),
        ],
        hips=[Key(0.1, (0, 0, 0)), Key(0.3, (-6, 0, 0)), Key(0.6, (8, 0, 0)), Key(0.85, (0, 0, 0))],
        head=[
            Key(0.0, (0, 16, 0)),
            Key(0.25, (-24, 12, 0)),
            Key(0.40, (0, 10, 0)),
            Key(0.56, (26, 10, 0)),
            Key(0.76, (5, 14, 0)),
            Key(0.90, (0, 16, 0)),
            Key(1.0, (0, 0, 0)),
        ],
    )
    # Some people begin with the other sleeve.
    return [mirror(script) if m.habit(0, 1) < 0.2 else script]


def take_off_jacket(m: Manner) -> list[Script]:
    """Undo `put_on_jacket`."""
    (script,) = put_on_jacket(m)
    return [reverse(script)]


def hand_waving(m: Manner) -> list[Script]:
    """Raise a hand and swing it from side to side."""
    begin, end = m.now(m.habit(0.17, 0.25), 0.02), m.now(0.80, 0.02)
    out, up, forward = m.habit(0.20, 0.38), m.habit(-0.04, 0.36), m.habit(0.14, 0.28)
    raised = Hand(begin, "chest", out, up, forward, (0.8, -0.8, 0.0))
    hertz = m.now(m.habit(1.5, 2.4), 0.1)
    wide = m.now(m.habit(0.05, 0.15), 0.01)
    return [
        Script(
            seconds=m.habit(2.0, 2.7),
            hands={"right": [hanging(0.0), raised, replace(raised, phase=end), hanging(1.0)]},
            shakes=[Shake("right", begin, end, hertz, (wide, 0.015, 0.0), 0.0)],
            chest=[
                Key(0.05, (0, 0, 0)),
                Key(begin, (-4, 0, 2)),
                Key(end, (-4, 0, 2)),
                Key(0.97, (0, 0, 0)),
            ],
        )
    ]


def kicking_something(m: Manner) -> list[Script]:
    """Swing a leg back and kick."""
    back = m.now(m.habit(0.30, 0.38), 0.02)
    hit = back + m.habit(0.15, 0.20)
    high = m.now(m.habit(0.18, 0.45), 0.02)
    lean = m.habit(4, 12)
    return [
        Script(
            seconds=m.habit(1.7, 2.1),
            feet={
                "right": [
                    Key(0.12, (0, 0, 0)),
                    Key(back, (-0.02, 0.16, -0.36)),
                    Key(hit, (-0.08, high, 0.66)),
                    Key(hit + 0.07, (-0.08, 0.9 * high, 0.60)),
                    Key(hit + 0.22, (-0.01, 0.05, 0.10)),
                    Key(hit + 0.32, (0, 0, 0)),
                ]
            },
            toes={
                "right": [
                    Key(0.12, (0, 0, 0)),
                    Key(back, (-35, 0, 0)),
                    Key(hit, (25, 0, 0)),
                    Key(hit + 0.24, (5, 0, 0)),
                    Key(hit + 0.32, (0, 0, 0)),
                ]
            },
            pelvis=[
                Key(0.04, (0, 0, 0)),
                Key(back - 0.05, (0.08, -0.03, 0.05)),
                Key(hit, (0.08, -0.02, 0.07)),
                Key(hit + 0.2, (0.05, -0.02, 0.03)),
                Key(1.0, (0, 0, 0)),
            ],
            chest=[
                Key(0.1, (0, 0, 0)),
                Key(back, (-12, lean, 0)),
                Key(hit, (14, -lean, 0)),
                Key(hit + 0.3, (0, 0, 0)),
            ],
            hands={
                "left": [
                    hanging(0.0),
                    Hand(back, "chest", 0.30, -0.30, 0.26),
                    Hand(hit, "hip", 0.36, 0.05, -0.16),
                    hanging(1.0),
                ],
                "right": [
                    hanging(0.0),
                    Hand(back, "hip", 0.34, 0.0, -0.14),
                    Hand(hit, "chest", 0.30, -0.34, 0.22),
                    hanging(1.0),
                ],
            },
        )
    ]


def jump_up(m: Manner) -> list[Script]:
    """Crouch, jump with both feet, land softly."""
    deep = m.habit(-0.34, -0.22)
    high = m.now(m.habit(0.18, 0.32), 0.015)
    down = m.now(m.habit(0.30, 0.36), 0.02)
    off, top, land = down + 0.10, down + 0.21, down + 0.32
    arms = m.habit(-0.25, 0.30)
    hands = [
        hanging(0.0),
        Hand(down, "hip", 0.28, 0.0, -0.22, BACK),
        Hand(top, "chest", 0.24, arms, 0.34, (0.9, -0.4, 0.0)),
        Hand(land + 0.06, "hip", 0.30, 0.02, 0.18),
        hanging(1.0),
    ]
    feet = [
        Key(off, (0, 0, 0)),
        Key(off + 0.03, (0, 0.04, 0)),
        Key(top, (0, high, -0.03)),
        Key(land - 0.03, (0, 0.03, 0)),
        Key(land, (0, 0, 0)),
    ]
    toes = [Key(off - 0.03, (0, 0, 0)), Key(off + 0.05, (-38, 0, 0)), Key(land, (0, 0, 0))]
    bent = 60 * -deep / 0.34
    return [
        Script(
            seconds=m.habit(1.6, 2.0),
            hands={"left": hands, "right": hands},
            feet={"left": feet, "right": feet},
            toes={"left": toes, "right": toes},
            pelvis=[
                Key(0.10, (0, 0, 0)),
                Key(down, (0, deep, -0.12)),
                Key(off, (0, 0.02, 0.0)),
                Key(top, (0, high + 0.03, 0.0)),
                Key(land, (0, 0.0, 0.0)),
                Key(land + 0.09, (0, 0.55 * deep, -0.08)),
                Key(min(land + 0.28, 0.99), (0, 0, 0)),
            ],
            chest=[
                Key(0.1, (0, 0, 0)),
                Key(down, (0, 0.6 * bent, 0)),
                Key(top, (0, -4, 0)),
                Key(land + 0.09, (0, 0.35 * bent, 0)),
                Key(0.98, (0, 0, 0)),
            ],
            hips=[
                Key(0.1, (0, 0, 0)),
                Key(down, (0, 0.4 * bent, 0)),
                Key(off, (0, 0, 0)),
                Key(land, (0, 0, 0)),
                Key(land + 0.09, (0, 0.2 * bent, 0)),
                Key(0.98, (0, 0, 0)),
            ],
        )
    ]


APART = 0.88
"""How far two people stand from each other, in metres, before either moves."""


def pushing(m: Manner) -> list[Script]:
    """Step towards the other and thrust both hands; the other is thrown back."""
    hit = m.now(m.habit(0.36, 0.46), 0.02)
    step = m.habit(0.14, 0.24)
    back = m.now(m.habit(0.26, 0.42), 0.03)
    height = m.habit(-0.18, -0.04)
    hands = [
        hanging(0.0),
        Hand(hit - 0.12, "chest", 0.15, height - 0.02, 0.20, DOWN),
        Hand(hit, "chest", 0.13, height, 0.54, DOWN),
        Hand(hit + 0.07, "chest", 0.13, height, 0.57, DOWN),
        hanging(min(hit + 0.38, 0.98)),
    ]
    pusher = Script(
        seconds=m.habit(1.9, 2.3),
        hands={"left": hands, "right": hands},
        pelvis=[
            Key(0.12, (0, 0, 0)),
            Key(hit, (0, -0.04, 0.5 * step + 0.10)),
            Key(hit + 0.1, (0, -0.04, 0.5 * step + 0.10)),
            Key(0.95, (0, 0, 0)),
        ],
        chest=[
            Key(0.1, (0, 0, 0)),
            Key(hit - 0.1, (0, -4, 0)),
            Key(hit, (0, 14, 0)),
            Key(0.9, (0, 0, 0)),
        ],
        feet={
            "right": [
                Key(0.10, (0, 0, 0)),
                Key(0.5 * (0.10 + hit), (0, 0.06, 0.5 * step)),
                Key(hit - 0.02, (0, 0, step)),
                Key(hit + 0.22, (0, 0, step)),
                Key(hit + 0.32, (0, 0.05, 0.5 * step)),
                Key(hit + 0.42, (0, 0, 0)),
            ]
        },
    )
    arms = [
        hanging(0.0),
        hanging(hit),
        Hand(hit + 0.14, "chest", 0.26, -0.26, 0.30),
        hanging(min(hit + 0.48, 0.99)),
    ]
    pushed = Script(
        seconds=pusher.seconds,
        hands={"left": arms, "right": arms},
        pelvis=[
            Key(hit, (0, 0, 0)),
            Key(hit + 0.16, (0, -0.04, -0.8 * back)),
            Key(hit + 0.34, (0, 0, -back)),
        ],
        chest=[
            Key(hit, (0, 0, 0)),
            Key(hit + 0.08, (0, -16, 0)),
            Key(hit + 0.24, (0, 12, 0)),
            Key(hit + 0.45, (0, 0, 0)),
        ],
        feet={
            "right": [
                Key(hit + 0.02, (0, 0, 0)),
                Key(hit + 0.09, (0, 0.07, -0.6 * back)),
                Key(hit + 0.16, (0, 0, -1.1 * back)),
                Key(hit + 0.34, (0, 0, -1.1 * back)),
            ],
            "left": [
                Key(hit + 0.14, (0, 0, 0)),
                Key(hit + 0.22, (0, 0.06, -0.5 * back)),
                Key(hit + 0.30, (0, 0, -0.95 * back)),
            ],
        },
    )
    return [pusher, pushed]


def handshaking(m: Manner) -> list[Script]:
    """Take each other by the right hand and shake."""
    meet = m.now(m.habit(0.26, 0.36), 0.02)
    part = m.now(m.habit(0.70, 0.80), 0.02)
    height = m.habit(0.98, 1.10)
    hertz, swing = m.now(m.habit(1.8, 3.0), 0.1), m.habit(0.03, 0.06)
    seconds = m.habit(2.1, 2.7)
    scripts = []
    for lean in (m.habit(3, 12), m.habit(3, 12)):
        # Both reach for the same point of the room, half-way between them.
        joined = Hand(meet, "room", 0.02, height, 0.5 * APART - 0.02, DOWN)
        scripts.append(
            Script(
                seconds=seconds,
                either_hand=False,
                hands={"right": [hanging(0.0), joined, replace(joined, phase=part), hanging(1.0)]},
                shakes=[Shake("right", meet + 0.04, part - 0.04, hertz, (0.0, swing, 0.0))],
                pelvis=[
                    Key(0.05, (0, 0, 0)),
                    Key(meet, (0, -0.01, 0.02)),
                    Key(part, (0, -0.01, 0.02)),
                    Key(0.97, (0, 0, 0)),
                ],
                chest=[
                    Key(0.05, (0, 0, 0)),
                    Key(meet, (6, lean, 0)),
                    Key(part, (6, lean, 0)),
                    Key(0.97, (0, 0, 0)),
                ],
            )
        )
    return scripts


def reverse(script: Script) -> Script:
    """Return the script run backwards in time."""

    def back(keys: list[K]) -> list[K]:
        return [replace(key, phase=1.0 - key.phase) for key in reversed(keys)]

    return replace(
        script,
        hands={side: back(keys) for side, keys in script.hands.items()},
        feet={side: back(keys) for side, keys in script.feet.items()},
        toes={side: back(keys) for side, keys in script.toes.items()},
        pelvis=back(script.pelvis),
        hips=back(script.hips),
        chest=back(script.chest),
        head=back(script.head),
        shakes=[
            replace(
                shake,
                first=1.0 - shake.last,
                last=1.0 - shake.first,
                swing=(-shake.swing[0], -shake.swing[1], -shake.swing[2]),
                angle=-shake.angle,
            )
            for shake in script.shakes
        ],
    )


def mirror(script: Script) -> Script:
    """Return the script with left and right exchanged."""
    other = {"left": "right", "right": "left"}

    def turned(keys: list[Key]) -> list[Key]:
        return [replace(key, value=(-key.value[0], key.value[1], -key.value[2])) for key in keys]

    return replace(
        script,
        hands={other[side]: keys for side, keys in script.hands.items()},
        feet={other[side]: keys for side, keys in script.feet.items()},
        toes={other[side]: keys for side, keys in script.toes.items()},
        pelvis=[replace(key, value=(-key.value[0], *key.value[1:])) for key in script.pelvis],
        hips=turned(script.hips),
        chest=turned(script.chest),
        head=turned(script.head),
        shakes=[replace(shake, hand=other[shake.hand]) for shake in script.shakes],
    )


ACTIONS: dict[str, Callable[[Manner], list[Script]]] = {
    "A001": drink_water,
    "A007": throw,
    "A008": sitting_down,
    "A009": standing_up,
    "A010": clapping,
    "A011": reading,
    "A014": put_on_jacket,
    "A015": take_off_jacket,
    "A023": hand_waving,
    "A024": kicking_something,
    "A027": jump_up,
    "A052": pushing,
    "A058": handshaking,
}
"""The scripts by class code; one per person, the first is the subject."""
