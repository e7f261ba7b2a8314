"""The bar chart of the docs' page *Benchmarks*, from figures of earlier runs: `python benchmarks/summary.py`

The figures stand here, because they come from different commands and days: put new ones in after a run, and run it again.
"""
from html import escape
from pathlib import Path

OURS = 'conkernelclient'
CHART = [  # title, unit, and for each client its figure, or why there is none
    ('A request with its outputs, 100 in flight, stub kernel', 'µs of client CPU',
     {OURS: 33.9, 'jupyter_client': 256, 'nbclient': 'runs one cell at a time', 'PyPI 0.0.23': 325}),
    ('20,000 live lines of output, ipykernel', 's of client CPU',
     {OURS: .35, 'jupyter_client': 2.1, 'nbclient': 3.1, 'PyPI 0.0.23': 'not measured'}),
    ('A fresh kernel (the other three always start cold)', 'ms of waiting',
     {f'{OURS}, pool': .29, f'{OURS}, fork': 211, 'a cold start': 1040})]
LEFT, BAR, ROW, WIDTH = 180, 360, 26, 640
STYLE = '''<style>
.card{fill:#fff;stroke:#d0d7de}.t{fill:#24292f}.m{fill:#57606a}.o{fill:#cf222e}.p{fill:#8c959f}
@media(prefers-color-scheme:dark){.card{fill:#161b22;stroke:#3d444d}.t{fill:#e6edf3}.m{fill:#9da7b3}.o{fill:#ff7b72}.p{fill:#6e7681}}
</style>'''


def text(x: float, y: float, words: str, kind: str = 't', more: str = '') -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" {more}>{escape(words)}</text>'


def group(y: float, title: str, unit: str, figures: dict[str, float | str]) -> list[str]:
    "One measure: a bar for each client, all on the scale of the longest"
    out = [text(20, y, title, more='font-weight="600"'), text(WIDTH - 20, y, unit, 'm', 'text-anchor="end"')]
    most = max(o for o in figures.values() if not isinstance(o, str))
    for i, (name, figure) in enumerate(figures.items()):
        top = y + 12 + i*ROW
        out.append(text(LEFT - 10, top + 14, name, more='text-anchor="end"'))
        if isinstance(figure, str):
            out.append(text(LEFT, top + 14, figure, 'm', 'font-style="italic"'))
            continue
        width = max(2, BAR*figure/most)
        out += [f'<rect x="{LEFT}" y="{top}" width="{width:.0f}" height="18" rx="2" class="{"o" if name.startswith(OURS) else "p"}"/>',
                text(LEFT + width + 8, top + 14, f'{figure:,.0f}' if figure >= 10 else str(figure))]
    return out


def svg() -> str:
    height = 10 + len(CHART)*44 + ROW*sum(len(o[2]) for o in CHART)
    said = '; '.join(f'{title} ({unit}): ' + ', '.join(f'{k} {v}' for k, v in figures.items()) for title, unit, figures in CHART)
    body, y = [], 34
    for part in CHART:
        body += group(y, *part)
        y += ROW*len(part[2]) + 44
    return '\n'.join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        'aria-labelledby="title desc" font-size="14" font-family="system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif">',
        '<title id="title">What conkernelclient and other clients cost</title>', f'<desc id="desc">{escape(said)}</desc>', STYLE,
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="10" class="card"/>', *body, '</svg>', ''])


if __name__ == '__main__': (Path(__file__).resolve().parent.parent/'nbs/images/summary.svg').write_text(svg(), encoding='utf-8')
