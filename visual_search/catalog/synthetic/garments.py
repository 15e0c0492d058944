"""Drawings of what is worn on the body; each takes a pen and one of its styles."""

from __future__ import annotations

from visual_search.catalog.synthetic.drawing import (
    Pen,
    Point,
    arc,
    box,
    ellipse,
    flipped,
    mirrored,
    shaded,
    smooth,
)


def draw_dress(pen: Pen, style: str) -> None:
    """``mini`` has puffed sleeves and a short skirt, ``maxi`` straps and reaches the floor."""
    neck: list[Point] = [(0, 22), (5, 20), (8, 9), (12, 9), (14, 18)]
    waist: list[Point] = [(14, 26), (10, 40)]
    if style == "mini":
        sleeve = smooth([(38, 11), (29, 15), (26, 26), (31, 31), (37, 26)])
        for points in (sleeve, flipped(sleeve)):
            pen.fabric(points, 0.92)
        hem, skirt = 76.0, [(17.0, 54.0), (29.0, 74.0), (20.0, 78.0), (10.0, 76.0), (0.0, 79.0)]
    else:
        hem, skirt = 92.0, [(15.0, 58.0), (25.0, 91.0), (16.0, 95.0), (8.0, 93.0), (0.0, 96.0)]
    pen.fabric(mirrored([*neck, *waist, *skirt]))
    pen.solid(mirrored([(0, 38.5), (10.2, 38.5), (10.2, 42), (0, 42)]), pen.ink, 0)
    for x, drift in ((-5, -9), (0, 0), (5, 9)):
        pen.line([(50 + x, 45), (50 + x + drift, hem - 6)], 0.5)


def draw_shirt(pen: Pen, style: str) -> None:
    """``long_sleeve`` has a collar and buttons, ``short_sleeve`` is a T-shirt."""
    if style == "long_sleeve":
        sleeve: list[Point] = [(31, 15), (23, 22), (11, 74), (20, 78), (31, 40)]
        cuff: list[Point] = [(11, 74), (20, 78), (18.6, 84), (9.6, 80)]
    else:
        sleeve = [(31, 15), (22, 20), (9, 40), (21, 48), (31, 36)]
        cuff = []
    for swap in (False, True):
        pen.fabric(flipped(sleeve) if swap else sleeve, 0.9)
        if cuff:
            pen.fabric(flipped(cuff) if swap else cuff, 0.75)
    pen.fabric(mirrored([(0, 17), (9, 11), (20, 15), (20, 34), (19, 88), (0, 89)]))
    if style == "long_sleeve":
        pen.solid(mirrored([(0, 12), (8, 11), (4, 15), (0, 20)]), shaded(pen.look.rgb, 0.5))
        collar: list[Point] = [(41, 9), (50, 20), (43, 27), (36, 14)]
        for points in (collar, flipped(collar)):
            pen.fabric(points, 0.88)
        pen.line([(50, 21), (50, 88)], 0.9)
        for y in range(30, 88, 11):
            pen.solid(ellipse(52.5, y, 1.5, 1.5), (250, 250, 248), 0.4)
        pen.line([(56, 36), (65, 36), (65, 46), (60.5, 49), (56, 46), (56, 36)], 0.7)
    else:
        pen.hole(smooth([(41, 10), (44, 16), (50, 19), (56, 16), (59, 10), (50, 7)]))
        pen.line(smooth([(39, 11.5), (43, 19), (50, 22), (57, 19), (61, 11.5)], closed=False), 0.8)


def draw_coat(pen: Pen, style: str) -> None:
    """``long`` is belted and reaches the calf, ``short`` ends at the hip."""
    hem, wide = (96.0, 25.0) if style == "long" else (70.0, 22.0)
    cuff_y = 58.0 if style == "long" else 64.0
    sleeve: list[Point] = [(30, 13), (21, 20), (9, cuff_y), (20, cuff_y + 4), (31, 40)]
    for points in (sleeve, flipped(sleeve)):
        pen.fabric(points, 0.82, 0.9)
    for swap in (False, True):
        strap: list[Point] = [
            (10.4, cuff_y - 6),
            (21.6, cuff_y - 2),
            (21, cuff_y),
            (9.6, cuff_y - 3),
        ]
        pen.solid(flipped(strap) if swap else strap, pen.ink, 0)
    body = [(0.0, 14.0), (9.0, 8.0), (20.0, 13.0), (19.0, 42.0), (wide, hem), (0.0, hem + 1)]
    pen.fabric(mirrored(body), outline=0.9)
    pen.line([(46, 44), (45, hem)], 1.0)  # the front overlaps to the left
    pen.solid([(43, 8), (57, 8), (52, 30), (46, 44), (44, 30)], (245, 242, 236))
    lapel: list[Point] = [(42, 6), (36, 10), (32, 25), (38, 26), (36, 30), (46, 46), (47, 30)]
    for points in (lapel, [(100 - x - (2 if y > 40 else 0), y) for x, y in lapel]):
        pen.fabric(points, 0.7, 0.9)
    for y in (52, 62) if style == "short" else (51, 66, 77):
        for x in (42, 55):
            pen.solid(ellipse(x, y, 2.1, 2.1), shaded(pen.ink, 0.6), 0.4)
    if style == "long":
        pen.solid(
            mirrored([(0, 55.5), (20.5, 55.5), (21, 60.5), (0, 60.5)]), shaded(pen.ink, 0.8), 0
        )
        pen.line(box(45, 54.5, 54, 61.5), 1.4, pen.look.metal)
    pocket_y = 66.0 if style == "long" else 58.0
    pocket: list[Point] = [
        (29, pocket_y),
        (38, pocket_y + 1),
        (38, pocket_y + 5),
        (28, pocket_y + 4),
    ]
    for points in (pocket, flipped(pocket)):
        pen.fabric(points, 0.75)


def draw_pants(pen: Pen, style: str) -> None:
    """``wide`` legs open towards the hem, ``narrow`` ones taper."""
    hem = (27.0, 3.5) if style == "wide" else (13.0, 4.5)
    _draw_legs(pen, waist_y=6, crotch_y=38, hem_y=95, hem=hem)
    crease = (hem[0] + hem[1]) / 2
    for side in (-1, 1):
        pen.line([(50 + side * 9, 30), (50 + side * crease, 93)], 0.5)


def draw_shorts(pen: Pen, style: str) -> None:
    """``wide`` legs stand out, ``narrow`` ones lie close."""
    hem = (33.0, 3.0) if style == "wide" else (23.0, 2.5)
    _draw_legs(pen, waist_y=24, crotch_y=56, hem_y=73, hem=hem)
    for side in (-1, 1):  # the turned-up hem
        pen.line([(50 + side * hem[0], 68), (50 + side * hem[1], 70)], 0.7)


def _draw_legs(
    pen: Pen, waist_y: float, crotch_y: float, hem_y: float, hem: tuple[float, float]
) -> None:
    outer, inner = hem
    pen.fabric(
        mirrored(
            [
                (0, waist_y),
                (15, waist_y),
                (19, waist_y + 18),
                (outer, hem_y),
                (inner, hem_y + 1.5),
                (0, crotch_y),
            ]
        )
    )
    pen.fabric(
        mirrored([(0, waist_y - 1), (15.2, waist_y - 1), (16, waist_y + 5), (0, waist_y + 5)]), 0.75
    )
    pen.line([(50, waist_y + 5), (50, crotch_y)], 0.8)
    pen.line(arc(50, waist_y + 5, 4, 15, 0, 85), 0.6)
    pen.solid(ellipse(50, waist_y + 2, 1.6, 1.6), pen.look.metal, 0.4)
    for side in (-1, 1):
        pen.line([(50 + side * 9, waist_y + 5), (50 + side * 17.5, waist_y + 14)], 0.8)
        pen.line([(50 + side * 10, waist_y - 1), (50 + side * 10, waist_y + 5)], 1.2)


def draw_skirt(pen: Pen, style: str) -> None:
    """``flared`` swings out over pleats, ``pencil`` is straight with a slit."""
    if style == "flared":
        hem = [(37.0, 74.0), (30.0, 79.0), (22.0, 75.0), (14.0, 80.0), (7.0, 76.0), (0.0, 81.0)]
        pen.fabric(mirrored([(0, 22), (13, 22), (20, 40), *hem]))
        for x, y in hem[1:]:
            for side in (-1, 1):
                pen.line([(50 + side * x * 0.36, 29), (50 + side * x, y - 1)], 0.6)
    else:
        pen.fabric(mirrored([(0, 14), (14, 14), (21, 34), (20, 58), (16, 88), (0, 88)]))
        pen.hole([(57, 89), (59, 68), (61.5, 89)])
        for side in (-1, 1):
            pen.line([(50 + side * 8, 20), (50 + side * 10, 32)], 0.6)
    top = 20 if style == "flared" else 12
    pen.fabric(mirrored([(0, top), (13, top), (14, top + 7), (0, top + 7)]), 0.7)


def draw_scarf(pen: Pen, style: str) -> None:
    """Laid once around a neck; ``long`` and ``short`` are the ends that hang down."""
    end = 88 if style == "long" else 66
    for x, tilt, y in ((44, -5, end), (57, 5, end - 8)):
        tail: list[Point] = [(x - 7, 34), (x + 7, 34), (x + 8 + tilt, y), (x - 8 + tilt, y)]
        for i in range(9):
            fringe = x + tilt - 7.4 + i * 1.85
            pen.line([(fringe, y), (fringe, y + 7)], 0.8, shaded(pen.look.rgb, 0.8))
        pen.fabric(tail, 0.92 if tilt < 0 else 0.8, 0.8)
    pen.fabric(smooth([(22, 22), (34, 10), (50, 7), (66, 10), (78, 22), (50, 26)]), 0.6)
    pen.hole(ellipse(50, 20, 17, 6.5))
    front = [
        (21, 20),
        (24, 34),
        (36, 44),
        (50, 47),
        (64, 44),
        (76, 34),
        (79, 20),
        (67, 25),
        (50, 28),
        (33, 25),
    ]
    pen.fabric(smooth(front), outline=0.9)
    for depth in (0.35, 0.7):
        fold = [(24, 24 + 6 * depth), (36, 27 + 14 * depth), (50, 29 + 16 * depth)]
        pen.line(smooth([*fold, *reversed(flipped(fold[:-1]))], closed=False), 0.6)


def draw_socks(pen: Pen, style: str) -> None:
    """A pair from the side; ``long`` reaches the knee, ``short`` the ankle."""
    top = 8 if style == "long" else 38
    for dx, shade in ((16, 0.8), (-6, 1.0)):
        leg: list[Point] = [(44 + dx, top), (62 + dx, top), (62 + dx, 58)]
        foot: list[Point] = [
            (64 + dx, 70),
            (60 + dx, 80),
            (50 + dx, 84),
            (32 + dx, 90),
            (18 + dx, 90),
        ]
        toe: list[Point] = [
            (13 + dx, 84),
            (16 + dx, 77),
            (28 + dx, 73),
            (40 + dx, 66),
            (44 + dx, 56),
        ]
        pen.fabric([*leg, *smooth([*foot, *toe], closed=False)], shade, 0.8)
        cap = smooth([(25 + dx, 74), (27 + dx, 82), (25 + dx, 90)], closed=False)
        tip = smooth([(18 + dx, 90), (13 + dx, 84), (16 + dx, 77)], closed=False)
        pen.solid([*cap, *tip], shaded(pen.look.rgb, 0.55))
        heel = smooth([(63 + dx, 62), (64 + dx, 70), (60 + dx, 79), (53 + dx, 82)], closed=False)
        pen.solid([*heel, (52 + dx, 72)], shaded(pen.look.rgb, 0.55))
        pen.solid(box(43.3 + dx, top - 1, 62.7 + dx, top + 8, 1), shaded(pen.look.rgb, 0.7))
        for x in range(46, 62, 3):
            pen.line([(x + dx, top), (x + dx, top + 7)], 0.5)
