"""The light a scene is seen in: the hour, the weather, the sun."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .colours import Colour


@dataclass(frozen=True)
class Light:
    """One kind of weather at one hour.

    Args:
        sun: Unit vector towards the sun (right, up, ahead).
        ambient: Brightness of a face the sun does not reach.
        direct: What a face square to the sun gains.
        sky_high: Colour of the sky far up.
        sky_low: Colour of the sky at the horizon.
        clouds: Share of the sky that clouds mix into, 0 to 1.
        haze: Colour that distance fades into.
        haze_density: How fast, per metre.
        gain: Exposure of the photo.
        cast: White balance of the photo, per channel.
    """

    sun: tuple[float, float, float]
    ambient: float
    direct: float
    sky_high: Colour
    sky_low: Colour
    clouds: float
    haze: Colour
    haze_density: float
    gain: float
    cast: Colour

    def on(self, right: float, up: float, ahead: float) -> float:
        """Brightness of a face with this unit normal."""
        towards = right * self.sun[0] + up * self.sun[1] + ahead * self.sun[2]
        return self.ambient + self.direct * max(0.0, towards)


SKIES: dict[str, dict[str, Colour]] = {
    'day': {'high': (88, 138, 200), 'low': (188, 210, 228)},
    'overcast': {'high': (168, 174, 182), 'low': (206, 208, 208)},
    'dusk': {'high': (78, 92, 134), 'low': (226, 172, 134)},
    'fog': {'high': (186, 190, 194), 'low': (200, 203, 205)},
}


def sample_light(rng: Generator) -> Light:
    """A day, more often bright than dim; each kind with its own spread."""
    hour = ('day', 'overcast', 'dusk', 'fog')[int(rng.choice(4, p=(0.46, 0.28, 0.16, 0.10)))]
    sunny = hour in ('day', 'dusk')
    azimuth = rng.uniform(-math.pi, math.pi)
    elevation = rng.uniform(0.15, 0.4) if hour == 'dusk' else rng.uniform(0.5, 1.1)
    level = math.cos(elevation)
    tint = rng.normal(0.0, 6.0, 3)
    high, low = (np.asarray(SKIES[hour][part]) + tint for part in ('high', 'low'))
    warm = rng.normal(0.05 if hour == 'dusk' else 0.0, 0.045)
    density = {'fog': rng.uniform(0.012, 0.035)}.get(hour, rng.uniform(0.0008, 0.006))
    return Light(
        sun=(level * math.sin(azimuth), math.sin(elevation), level * math.cos(azimuth)),
        ambient=0.62 if sunny else 0.82,
        direct=0.55 if sunny else 0.2,
        sky_high=(high[0], high[1], high[2]),
        sky_low=(low[0], low[1], low[2]),
        clouds=rng.uniform(0.0, 0.9) if hour != 'fog' else 0.1,
        haze=(0.94 * low[0], 0.95 * low[1], 0.97 * low[2]),
        haze_density=density,
        gain=rng.uniform(0.5, 0.75) if hour == 'dusk' else rng.uniform(0.72, 1.12),
        cast=(1.0 + warm, 1.0 + rng.normal(0.0, 0.015), 1.0 - warm),
    )
