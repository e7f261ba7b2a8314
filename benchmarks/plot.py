"The picture, drawn as SVG by hand: two panels, both axes logarithmic."
from html import escape
from math import ceil, floor, log10

W,H,TOP,LEFT,GAP,ROW = 430,330,50,60,90,20 # of one panel, in pixels
FLOOR,OURS,OTHERS = '#8a8a8a','#d1242f',['#0969da', '#1a7f37', '#8250df', '#bf8700', '#0b7285', '#c2255c', '#5c3d2e']


def colours(labels:list[str]) -> dict[str, tuple[str, str]]:
    "A colour and a dash pattern for each label: grey floors, red for this library."
    out,others,seen = {},iter(OTHERS * 3),{}
    for label in labels:
        kind = FLOOR if label.startswith(('floor', 'bare')) else OURS if label.startswith('this') else next(others)
        seen[kind] = seen.get(kind, -1) + 1
        out[label] = kind,('', '6 4', '2 3')[seen[kind] % 3]
    return out


def decades(vals:list[float]) -> tuple[int, int]:
    low,high = floor(log10(min(vals))),ceil(log10(max(vals)))
    return low,max(high, low + 1)


def short(power:int) -> str: return f'{10**power:,}' if power >= 0 else str(10**power)


def text(x:float, y:float, words:str, anchor:str='start', size:int=12, extra:str='') -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}" {extra}>{escape(words)}</text>'


def grid(x0:float, xs:tuple, ys:tuple, fx, fy, title:str) -> list[str]:
    "A panel's frame, decade lines and words."
    out = [text(x0 + W/2, TOP - 18, title, 'middle', 14), text(x0 + W/2, TOP + H + 38, 'requests in flight', 'middle')]
    for p in range(xs[0], xs[1] + 1):
        out += [f'<path d="M{fx(10**p):.1f} {TOP}v{H}" stroke="#ddd"/>', text(fx(10**p), TOP + H + 18, short(p), 'middle')]
    for p in range(ys[0], ys[1] + 1):
        out += [f'<path d="M{x0} {fy(10**p):.1f}h{W}" stroke="#ddd"/>', text(x0 - 6, fy(10**p) + 4, short(p), 'end')]
    return out


def panel(x0:float, lines:dict[str, dict[int, float]], title:str, style:dict) -> list[str]:
    xs = decades([n for points in lines.values() for n in points])
    ys = decades([v for points in lines.values() for v in points.values()])
    def fx(n): return x0 + W * (log10(n) - xs[0]) / (xs[1] - xs[0])
    def fy(v): return TOP + H * (ys[1] - log10(v)) / (ys[1] - ys[0])
    out = grid(x0, xs, ys, fx, fy, title)
    for label, points in lines.items():
        colour,dash = style[label]
        path = ' '.join(f'{fx(n):.1f},{fy(v):.1f}' for n, v in points.items())
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
        out += [f'<circle cx="{fx(n):.1f}" cy="{fy(v):.1f}" r="3" fill="{colour}"/>' for n, v in points.items()]
    return out


def legend(style:dict, width:float) -> list[str]:
    out = []
    for i, (label, (colour, dash)) in enumerate(style.items()):
        x,y = LEFT + (i % 2) * width / 2,TOP + H + 70 + (i // 2) * ROW
        out += [f'<path d="M{x} {y - 4}h34" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>', text(x + 42, y, label)]
    return out


def svg(lines:dict[str, dict[int, tuple[float, float]]]) -> str:
    "Throughput and client CPU per request against requests in flight, for each label."
    width,height = LEFT + 2*W + GAP + 20,TOP + H + 80 + ROW * ceil(len(lines) / 2)
    style = colours(list(lines))
    body = panel(LEFT, {k: {n: v[0] for n, v in p.items()} for k, p in lines.items()}, 'requests per second', style)
    body += panel(LEFT + W + GAP, {k: {n: v[1] for n, v in p.items()} for k, p in lines.items()}, 'client CPU per request, µs', style)
    return '\n'.join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" fill="#222">',
                      f'<rect width="{width}" height="{height}" fill="white"/>', *body, *legend(style, width), '</svg>', ''])
