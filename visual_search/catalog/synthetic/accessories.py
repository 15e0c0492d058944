"""Drawings of shoes, bags, jewelry and the like; each takes a pen and one of its styles."""

from __future__ import annotations

import math

from visual_search.catalog.synthetic.drawing import (
    GLASS,
    Pen,
    Point,
    Rgb,
    arc,
    box,
    ellipse,
    flipped,
    mixed,
    shaded,
    smooth,
)

SOLE: Rgb = (244, 242, 236)
DARK: Rgb = (52, 44, 40)


def draw_shoe(pen: Pen, style: str) -> None:
    """One shoe from the side, its toe to the left."""
    {"heel": _draw_heel, "sneaker": _draw_sneaker, "boot": _draw_boot}[style](pen)


def _draw_heel(pen: Pen) -> None:
    pen.solid([(80, 48), (92, 46), (89, 84), (85.5, 84)], shaded(pen.look.rgb, 0.6))
    inside = smooth([(36, 66), (56, 60), (72, 44), (84, 26), (80, 44), (60, 66)])
    pen.solid(inside, mixed(pen.look.rgb, (236, 214, 190), 0.7))
    upper = [
        (6, 80),
        (14, 72),
        (30, 66),
        (40, 68),
        (52, 68),
        (66, 58),
        (76, 42),
        (84, 25),
        (90, 30),
    ]
    pen.fabric(
        smooth([*upper, (93, 46), (86, 54), (74, 62), (58, 74), (42, 82), (22, 84)]), outline=0.9
    )
    pen.line(smooth([(6, 82), (22, 85), (42, 83), (58, 75), (74, 63)], closed=False), 1.6, DARK)


def _draw_sneaker(pen: Pen) -> None:
    upper = [
        (7, 66),
        (10, 56),
        (22, 51),
        (36, 46),
        (48, 34),
        (56, 28),
        (62, 34),
        (76, 34),
        (86, 28),
    ]
    pen.fabric(smooth([*upper, (91, 38), (92, 60), (92, 68), (50, 70), (10, 70)]), outline=0.9)
    toe = [(7, 66), (10, 56), (22, 51), (27, 58), (27, 68), (12, 70)]
    pen.solid(smooth(toe), SOLE)
    pen.solid(box(5, 66, 95, 76, 4), SOLE, 0.9)
    pen.line([(6, 72.5), (94, 72.5)], 1.0)
    trim = SOLE if sum(pen.look.rgb) < 600 else shaded(pen.look.rgb, 0.6)  # seen on white too
    for i in range(4):
        x, y = 33 + i * 5.5, 50 - i * 4.8
        pen.line([(x, y), (x + 8, y + 5)], 1.7, trim)
    pen.line(smooth([(50, 64), (62, 60), (74, 50), (82, 46)], closed=False), 2.6, trim)


def _draw_boot(pen: Pen) -> None:
    pen.solid([(70, 78), (89, 78), (88, 92), (72, 92)], DARK)
    shaft: list[Point] = [(50, 12), (86, 12), (84, 40), (88, 60), (89, 80)]
    pen.fabric(
        [
            *shaft,
            *smooth(
                [(70, 80), (40, 84), (12, 84), (8, 77), (14, 68), (34, 62), (48, 52), (51, 36)],
                closed=False,
            ),
        ],
        outline=0.9,
    )
    pen.solid([(8, 81), (40, 83), (70, 79), (70, 83), (42, 88), (10, 87)], DARK)
    pen.fabric([(49, 10), (87, 10), (86.4, 17), (49.6, 17)], 0.7)
    for i in range(5):
        pen.line(
            [(52, 24 + i * 7), (64, 26 + i * 7)], 1.5, DARK if sum(pen.look.rgb) > 300 else SOLE
        )


def draw_handbag(pen: Pen, style: str) -> None:
    """``tote`` stands with two handles, ``shoulder`` has a flap and a chain."""
    if style == "tote":
        pen.line(arc(50, 40, 17, 27, 180, 360), 3.4, shaded(pen.look.rgb, 0.5))
        pen.fabric([(20, 38), (80, 38), (88, 88), (12, 88)], outline=0.9)
        pen.line(arc(50, 46, 17, 27, 180, 360), 3.4, shaded(pen.look.rgb, 0.7))
        for x in (33, 67):
            pen.solid(ellipse(x, 46, 2.6, 2.6), pen.look.metal)
        pen.fabric([(19.6, 38), (80.4, 38), (81, 42), (19, 42)], 0.7)
        pen.solid(box(43, 58, 57, 67, 2), pen.look.metal)
    else:
        for point in arc(50, 50, 36, 42, 183, 357, 34):
            pen.line(ellipse(*point, 1.5, 1.5, 10), 0.9, pen.look.metal)
        pen.fabric(box(12, 48, 88, 88, 6), outline=0.9)
        flap = [(12, 54), (14, 48), (86, 48), (88, 54), (82, 66), (60, 73), (40, 73), (18, 66)]
        pen.fabric(flap, 0.8, 0.9)
        pen.solid(box(45, 67, 55, 77, 1.5), pen.look.metal)
        pen.solid(ellipse(50, 72, 1.6, 1.6), DARK, 0)


def draw_hat(pen: Pen, style: str) -> None:
    """``wide_brim`` is a sun hat, ``cap`` has a peak."""
    if style == "wide_brim":
        pen.fabric(ellipse(50, 62, 46, 15), 0.85, 0.9)
        crown = [(27, 60), (29, 38), (35, 27), (50, 29), (65, 27), (71, 38), (73, 60)]
        pen.fabric([*smooth(crown, closed=False), *arc(50, 60, 23, 6, 0, 180)], outline=0.9)
        band = [*arc(50, 51, 22.4, 6, 180, 0), *arc(50, 60, 23, 6, 0, 180)]
        pen.solid(band, pen.ink)
    else:
        peak = [(34, 62), (18, 61), (5, 67), (4, 72), (22, 71), (48, 68)]
        pen.fabric(smooth(peak), 0.65, 0.9)
        pen.fabric([*arc(60, 62, 31, 36, 180, 360), (90, 66), (58, 69), (32, 66)], outline=0.9)
        pen.solid(ellipse(60, 26, 3, 2), pen.ink, 0)
        for rx in (10, -14):
            pen.line(arc(60, 62, rx, 36, 270, 360), 0.7)
        pen.line(smooth([(30, 60), (58, 63), (90, 60)], closed=False), 0.7)


def draw_sunglasses(pen: Pen, style: str) -> None:
    """``round`` or ``square`` lenses, seen from the front."""
    for swap in (False, True):
        temple: list[Point] = [(9, 42), (3, 34), (7, 30), (14, 38)]
        pen.fabric(flipped(temple) if swap else temple, 0.7)
    for x in (28.0, 72.0):
        if style == "round":
            frame, lens = ellipse(x, 52, 21, 21), ellipse(x, 52, 17, 17)
        else:
            slant = 3 if x < 50 else -3
            frame = [
                (px - slant * (py - 52) / -16, py) for px, py in box(x - 21, 36, x + 21, 68, 7)
            ]
            lens = [(px - slant * (py - 52) / -16, py) for px, py in box(x - 17, 40, x + 17, 64, 5)]
        pen.fabric(frame, outline=0.8)
        pen.solid(lens, GLASS)
        pen.line([(x - 9, 50), (x - 2, 43)], 2.2, (150, 158, 172))
        pen.line([(x - 8, 56), (x + 3, 45)], 1.2, (120, 128, 142))
    pen.line(arc(50, 50, 6, 6, 190, 350), 4.4, pen.look.rgb)
    pen.line(arc(50, 47.4, 6.5, 6, 200, 340), 0.6)


def draw_watch(pen: Pen, style: str) -> None:
    """A ``round`` or ``square`` dial on a strap."""
    pen.fabric([(39, 4), (61, 4), (64, 34), (36, 34)])
    pen.fabric([(36, 66), (64, 66), (60, 93), (50, 97), (40, 93)])
    for y in (76, 81, 86):
        pen.solid(ellipse(50, y, 1.1, 1.1), shaded(pen.ink, 0.7), 0)
    pen.line([(37, 5), (63, 5), (63, 9), (37, 9), (37, 5)], 1.6, pen.look.metal)
    pen.solid(box(72, 46, 78, 54, 1), pen.look.metal)
    if style == "round":
        case, dial = ellipse(50, 50, 25, 25), ellipse(50, 50, 20.5, 20.5)
    else:
        case, dial = box(27, 27, 73, 73, 6), box(31.5, 31.5, 68.5, 68.5, 3)
    pen.solid(case, pen.look.metal, 0.9)
    pen.solid(dial, (250, 250, 246))
    for hour in range(12):
        cos, sin = math.cos(hour * math.pi / 6), math.sin(hour * math.pi / 6)
        inner = 14 if hour % 3 == 0 else 16
        pen.line([(50 + inner * cos, 50 + inner * sin), (50 + 18 * cos, 50 + 18 * sin)], 1.3, DARK)
    pen.line([(50, 50), (42, 43)], 1.9, DARK)
    pen.line([(50, 50), (60, 38)], 1.4, DARK)
    pen.solid(ellipse(50, 50, 1.8, 1.8), DARK, 0)


def draw_ring(pen: Pen, style: str) -> None:
    """A band of metal with a ``round`` or ``square`` stone in the product's colour."""
    metal = pen.look.metal
    pen.solid(ellipse(50, 65, 28, 29), metal, 0.9)
    pen.hole(ellipse(50, 65, 21.5, 22.5), 0)
    pen.line(ellipse(50, 65, 21.5, 22.5), 0.8, shaded(metal, 0.55))
    pen.line(arc(50, 65, 25, 26, 130, 215), 1.6, mixed(metal, (255, 255, 255), 0.65))
    pen.solid([(37, 42), (63, 42), (57, 34), (43, 34)], shaded(metal, 0.85))
    stone = pen.look.rgb
    light, dark = mixed(stone, (255, 255, 255), 0.45), shaded(stone, 0.72)
    if style == "square":
        pen.solid(box(34, 9, 66, 37), stone, 1.0)
        pen.solid([(34, 9), (66, 9), (59, 16), (41, 16)], light, 0.5)
        pen.solid([(34, 37), (66, 37), (59, 30), (41, 30)], dark, 0.5)
        pen.solid([(66, 9), (66, 37), (59, 30), (59, 16)], shaded(stone, 0.85), 0.5)
    else:
        girdle: list[Point] = [(30, 20), (39, 8), (61, 8), (70, 20)]
        pen.solid([*girdle, (50, 42)], stone, 1.0)
        pen.solid([(30, 20), (39, 8), (43, 20)], light, 0.5)
        pen.solid([(39, 8), (61, 8), (57, 20), (43, 20)], mixed(stone, (255, 255, 255), 0.25), 0.5)
        pen.solid([(57, 20), (70, 20), (50, 42)], dark, 0.5)
        pen.solid([(43, 20), (57, 20), (50, 42)], shaded(stone, 0.88), 0.5)
    for x in (38, 62):
        pen.line([(x, 38), (x - (4 if x < 50 else -4), 30 if style == "round" else 36)], 2.2, metal)


def draw_necklace(pen: Pen, style: str) -> None:
    """``beads`` in the product's colour, or a ``pendant`` of it on a chain."""
    curve = smooth([(22, 6), (20, 32), (30, 58), (50, 70), (70, 58), (80, 32), (78, 6)], False, 5)
    if style == "beads":
        pen.line(curve, 0.9, shaded(pen.look.metal, 0.8))
        for i, (x, y) in enumerate(curve):
            radius = 3.0 + 2.6 * math.sin(math.pi * i / (len(curve) - 1))
            pen.solid(ellipse(x, y, radius, radius, 24), pen.look.rgb, 0.6)
            shine = mixed(pen.look.rgb, (255, 255, 255), 0.7)
            pen.solid(ellipse(x - radius / 3, y - radius / 3, radius / 4, radius / 4, 12), shine, 0)
    else:
        pen.line(curve, 1.5, shaded(pen.look.metal, 0.85))
        for x, y in curve[::2]:
            pen.line(ellipse(x, y, 1.4, 1.4, 10), 0.8, pen.look.metal)
        pen.line(ellipse(50, 71.5, 2.4, 2.4, 16), 1.2, pen.look.metal)
        drop = smooth([(50, 73), (57, 83), (58, 90), (50, 96), (42, 90), (43, 83)])
        pen.solid(drop, pen.look.metal, 0.8)
        gem = [(50 + (x - 50) * 0.72, 86 + (y - 86) * 0.72) for x, y in drop]
        pen.solid(gem, pen.look.rgb, 0.6)
        pen.line([(47, 85), (46.5, 89)], 1.4, mixed(pen.look.rgb, (255, 255, 255), 0.7))


def draw_belt(pen: Pen, style: str) -> None:
    """Laid out straight, its buckle at the left; ``wide`` or ``narrow`` leather."""
    half = 9.0 if style == "wide" else 5.0
    pen.fabric(
        [(14, 50 - half), (90, 50 - half), (97, 50), (90, 50 + half), (14, 50 + half)], outline=0.9
    )
    for y in (50 - half + 1.6, 50 + half - 1.6):
        pen.line([(28, y), (90, y)], 0.5)
    for x in range(66, 91, 6):
        pen.solid(ellipse(x, 50, 1.3, 1.3), shaded(pen.ink, 0.6), 0)
    frame = half + 4.5
    pen.line([*box(5, 50 - frame, 26, 50 + frame, 3), (5, 50 - frame + 3)], 3.4, pen.look.metal)
    pen.line([(6, 50), (28, 50)], 2.2, shaded(pen.look.metal, 0.8))
    pen.fabric(box(33, 50 - half - 1.5, 38.5, 50 + half + 1.5, 1), 0.7)
