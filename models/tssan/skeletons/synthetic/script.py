"""What a person does, as keys over the phase of an action, and how keys become smooth motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from tssan.skeletons.synthetic.body import Array, Body, Frame, joints, trunk

FPS = 30.0

_ELBOW = (0.45, -0.6, -0.75)


@dataclass(frozen=True)
class Hand:
    """Where a palm is at one phase of the action; phases below 0 and above 1 are of the waiting.

    `out`, `up` and `forward` are metres (reference stature) in the frame of the body part `at`:
    ``hip`` (spine base), ``chest`` (between the shoulders), ``head`` or ``room`` (the floor where
    the person stands). `out` counts towards the hand's own side, so that 0 is the person's middle.
    `elbow` is the direction in which the elbow points, in the chest's frame.
    """

    phase: float
    at: str
    out: float
    up: float
    forward: float
    elbow: tuple[float, float, float] = _ELBOW


@dataclass(frozen=True)
class Key:
    """A value at one phase of the action: an offset in metres or angles in degrees."""

    phase: float
    value: tuple[float, float, float]


@dataclass(frozen=True)
class Shake:
    """A to-and-fro of a hand between two phases, `hertz` times a second.

    `swing` is the amplitude (out, up, forward) in metres, `angle` that of the sine half-way between
    the two phases, in turns.
    """

    hand: str
    first: float
    last: float
    hertz: float
    swing: tuple[float, float, float]
    angle: float = 0.0


@dataclass
class Script:
    """One person's part in an action of `seconds` (from phase 0 to 1, at a middling tempo).

    A track without keys stays as the person stands: hands hanging, feet flat, trunk upright.
    `hands` and `feet` are by side; a foot's keys are offsets (out, up, forward) of the ankle from
    where it stands, `toes` the pitch of the foot in degrees (first number; the rest unused).
    `either_hand` says whether a left-handed person does it the other way round.
    """

    seconds: float
    hands: dict[str, list[Hand]] = field(default_factory=dict)
    feet: dict[str, list[Key]] = field(default_factory=dict)
    toes: dict[str, list[Key]] = field(default_factory=dict)
    pelvis: list[Key] = field(default_factory=list)
    hips: list[Key] = field(default_factory=list)
    chest: list[Key] = field(default_factory=list)
    head: list[Key] = field(default_factory=list)
    shakes: list[Shake] = field(default_factory=list)
    either_hand: bool = True


@dataclass(frozen=True)
class Trial:
    """How this performance differs from the same person's others.

    `lead` and `tail` are seconds of standing before and after, `pace` multiplies the duration,
    `warp` bends time within the action, `blur` is the smoothing of the keys in frames, `rng` draws
    the sway of the body; without it the person keeps perfectly still.
    """

    lead: float = 0.2
    tail: float = 0.2
    pace: float = 1.0
    warp: float = 0.0
    blur: float = 1.6
    rng: np.random.Generator | None = None

    def phases(self, seconds: float) -> Array:
        """Return the phase of the action in every frame, (t,): below 0 before, above 1 after."""
        core = max(round(seconds * self.pace * FPS), 2)
        lead, tail = round(self.lead * FPS), round(self.tail * FPS)
        phase = np.arange(-lead, core + tail) / (core - 1)
        during = np.clip(phase, 0.0, 1.0)
        return phase + self.warp * np.sin(np.pi * during) ** 2 / np.pi


def weights(keys: Sequence[float], phase: Array, blur: float) -> Array:
    """Return the share (t, n) of each of n keys at each phase (t,); rows sum to 1.

    Between two keys the share passes from one to the other, half linearly and half with minimum
    jerk (Flash and Hogan 1985), so that hands slow down at a target without stopping dead there;
    a Gaussian over `blur` frames rounds what is left of the corners.
    """
    times = np.asarray(keys, float)
    out = np.zeros((len(phase), len(times)))
    for n in range(len(times) - 1):
        x = (phase - times[n]) / (times[n + 1] - times[n])
        inside = (x >= 0) & (x < 1)
        x = x[inside]
        share = 0.5 * x + 0.5 * (10 * x**3 - 15 * x**4 + 6 * x**5)
        out[inside, n], out[inside, n + 1] = 1 - share, share
    out[phase < times[0], 0] = 1.0
    out[phase >= times[-1], -1] = 1.0
    return gaussian_filter1d(out, blur, axis=0, mode="nearest")


def sway(rng: np.random.Generator | None, t: int, amplitude: float, channels: int) -> Array:
    """Return slow wandering (t, channels) with the given standard deviation."""
    if rng is None:
        return np.zeros((t, channels))
    hertz = rng.uniform(0.15, 0.9, size=(3, channels))
    turns = rng.uniform(0, 1, size=(3, channels))
    seconds = np.arange(t)[:, None, None] / FPS
    return amplitude * np.sqrt(2 / 3) * np.sin(2 * np.pi * (seconds * hertz + turns)).sum(1)


def act(body: Body, script: Script, trial: Trial) -> Array:
    """Act out a script; return the joints (t, v, 3) in the person's own frame, in metres."""
    phase = trial.phases(script.seconds)
    t = len(phase)

    def track(keys: list[Key], amplitude: float) -> Array:
        wander = sway(trial.rng, t, amplitude, 3)
        if not keys:
            return wander
        values = np.array([key.value for key in keys], float)
        return weights([key.phase for key in keys], phase, trial.blur) @ values + wander

    base = body.scale * track(script.pelvis, 0.005)
    base[:, 1] += body.standing_height
    chest, head = np.radians(track(script.chest, 1.0)), np.radians(track(script.head, 2.0))
    chest[:, 1] += body.slump
    head[:, 1] -= 0.6 * body.slump
    parts = trunk(body, base, np.radians(track(script.hips, 0.7)), chest, head)

    floor = Frame(np.zeros((t, 3)), np.broadcast_to(np.eye(3), (t, 3, 3)))
    frames = {"hip": parts.pelvis, "chest": parts.chest, "head": parts.head, "room": floor}
    hands, feet = {}, {}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        keys = script.hands.get(side) or [hanging(0.0)]
        share = weights([key.phase for key in keys], phase, trial.blur)
        shaking = sway(trial.rng, t, 0.006, 3)
        for shake in script.shakes:
            if shake.hand == side:
                shaking = shaking + _shaking(shake, phase, trial.blur)
        shaking *= [sign * body.scale, body.scale, body.scale]
        palm, pole = parts.chest.turn(shaking), np.zeros((t, 3))
        for n, key in enumerate(keys):
            offset = np.array([sign * key.out, key.up, key.forward])
            # A place in the room is where it is, whoever reaches for it.
            offset *= 1.0 if key.at == "room" else body.scale
            palm = palm + share[:, n, None] * frames[key.at].place(offset)
            elbow = np.array(key.elbow) * [sign, 1.0, 1.0] / np.linalg.norm(key.elbow)
            pole = pole + share[:, n, None] * parts.chest.turn(elbow)
        hands[side] = (palm, pole)

        stance = body.scale * np.array([sign * 0.115, 0.0, -0.01]) + [0, body.ankle_height, 0]
        step = np.zeros((t, 3))
        if steps := script.feet.get(side):
            offsets = np.array([key.value for key in steps]) * [sign, 1.0, 1.0]
            step = weights([key.phase for key in steps], phase, trial.blur) @ offsets
        pitch = np.zeros(t)
        if toes := script.toes.get(side):
            angles = np.array([key.value[0] for key in toes])
            pitch = weights([key.phase for key in toes], phase, trial.blur) @ np.radians(angles)
        angles = np.stack([np.full(t, sign * np.radians(9.0)), pitch], axis=-1)
        feet[side] = (stance + body.scale * step, angles)
    return joints(body, parts, hands, feet)


def hanging(phase: float) -> Hand:
    """Return the key of an arm that hangs down."""
    return Hand(phase, "hip", 0.245, -0.105, 0.05, (0.35, -0.3, -0.9))


def fidget(script: Script, side: str, place: Hand, begin: float, end: float) -> Script:
    """Let a hand that hangs at first go somewhere and back, from phase `begin` to `end` (below 0).

    Nothing is changed where the hand has something to do from the start.
    """
    keys = script.hands.get(side) or [hanging(0.0)]
    if keys[0] != hanging(0.0):
        return script
    middle = (begin + end) / 2
    pause = (end - begin) / 8
    before = [
        hanging(begin),
        replace(place, phase=middle - pause),
        replace(place, phase=middle + pause),
        hanging(end),
    ]
    return replace(script, hands={**script.hands, side: [*before, *keys]})


def _shaking(shake: Shake, phase: Array, blur: float) -> Array:
    inside = (phase >= shake.first) & (phase <= shake.last)
    frames = np.arange(len(phase))
    seconds = (frames - frames[inside].mean()) / FPS
    envelope = gaussian_filter1d(inside.astype(float), 1.5 * blur, mode="nearest")
    wave = np.sin(2 * np.pi * (shake.hertz * seconds + shake.angle))
    return envelope[:, None] * wave[:, None] * np.array(shake.swing)
