"""Thirty cells as models write them, and what a model must be able to tell from what it reads of each.

`CELLS` maps a name to the code, to texts that must stand in what the model reads, and to texts that must not.
"""
from typing import NamedTuple


class Cell(NamedTuple):
    code: str
    says: tuple[str, ...] = ()   # each stands in the text
    hides: tuple[str, ...] = ()   # none of these does
    pictures: int = 0
    error: bool = False
    longest: int = 10_000   # characters of the text, at most
    needs: tuple[str, ...] = ()   # packages


FRAME = 'import pandas as pd\n'
PLOT = 'import matplotlib; matplotlib.use("module://matplotlib_inline.backend_inline")\nimport matplotlib.pyplot as plt\n'
CELLS = {
    'value': Cell('6*7', ('42',)),
    'nothing': Cell('x = 5', ('[no output]',)),
    'frame': Cell(FRAME+'pd.DataFrame({f"c{j}": range(1000) for j in range(31)})', ('c0', 'c30', '999', '1000 rows × 31 columns'), ('<td>',), needs=('pandas', 'markdownify')),
    'small frame': Cell(FRAME+'pd.DataFrame(dict(city=["Rome", "Oslo"], people=[2_800_000, 700_000]))', ('Rome', 'Oslo', '2800000', '2 rows × 2 columns'), ('<td>',), needs=('pandas', 'markdownify')),
    'multi-index frame': Cell(FRAME+'pd.DataFrame(dict(a=[1, 1, 2], b=[1, 2, 3], v=[7, 8, 9])).set_index(["a", "b"])', ('7', '8', '9', '3 rows × 1 columns'), ('<td>',), needs=('pandas', 'markdownify')),
    'series': Cell(FRAME+'pd.Series([1, 2, 3], name="s")', ('Name: s, dtype: int64',), needs=('pandas',)),
    'plot': Cell(PLOT+'plt.plot([1, 3, 2]); plt.title("t")', ('[image/png, ',), ('Text(', '<Figure'), pictures=1, needs=('matplotlib',)),
    'two plots and a print': Cell(PLOT+'for i in range(2):\n    print("plot", i)\n    plt.plot([i, 1]); plt.show()', ('plot 0', 'plot 1'), ('<Figure',), pictures=2, needs=('matplotlib',)),
    'plotly': Cell('import plotly.graph_objects as go\nfig = go.Figure([go.Scatter(x=[1, 2, 30], y=[4.5, 1, 9], name="price"), go.Bar(x=["a", "b"], y=[3, 8])], go.Layout(title="Sales", xaxis_title="week"))\n'
                   'from IPython.display import display\ndisplay({"application/vnd.plotly.v1+json": fig.to_plotly_json()|dict(config={}), "text/html": "<div>"+"x"*5000+"</div>"}, raw=True)',
                   ('Sales', 'week', 'price', 'scatter', 'bar', '1 to 30', '1 to 9'), ('xxxx',), longest=600, needs=('plotly',)),
    'vega-lite': Cell('from IPython.display import display\ndisplay({"application/vnd.vegalite.v5+json": {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "title": "Cars", "mark": "point", '
                      '"encoding": {"x": {"field": "hp", "type": "quantitative"}, "y": {"field": "mpg", "type": "quantitative", "title": "miles"}, "color": {"field": "origin"}}, '
                      '"data": {"values": [{"hp": 130, "mpg": 18, "origin": "USA"}, {"hp": 46, "mpg": 26, "origin": "Europe"}]}}, "text/plain": "<VegaLite 5 object>"}, raw=True)',
                      ('Cars', 'point', 'hp', 'miles', 'origin', '46 to 130', '18 to 26', '2 rows'), longest=500),
    'error': Cell('def f(x): return 1/x\nf(0)', ('ZeroDivisionError: division by zero', 'line 1'), error=True),
    'recursion': Cell('def f(n):\n    if n == 0: raise ValueError("deep down")\n    return f(n-1)\nf(60)', ('ValueError: deep down', ' more times'), error=True, longest=1500),
    'mutual recursion': Cell('def even(n):\n    if n == 0: raise ValueError("deep down")\n    return odd(n-1)\ndef odd(n):\n    return even(n-1)\neven(60)', ('ValueError: deep down', ' more times', 'in even', 'in odd'), error=True, longest=2000),
    'endless recursion': Cell('def f(n): return f(n+1)\nf(0)', ('RecursionError',), error=True, longest=1500),
    'error in a library': Cell('import json\njson.loads("{bad")', ('JSONDecodeError', 'json.loads("{bad")', 'decoder.py'), ('StopIteration as err',), error=True, longest=1500),
    'error in pandas': Cell(FRAME+'pd.DataFrame(dict(a=[1]))["missing"]', ('KeyError', "'missing'", '["missing"]'), ('casted_key', 'self._engine'), error=True, longest=2000, needs=('pandas',)),
    'chained errors': Cell('try: {}["key"]\nexcept KeyError as e: raise RuntimeError("could not look up") from e', ("KeyError: 'key'", 'direct cause', 'RuntimeError: could not look up'), error=True),
    'syntax error': Cell('for i in range(3) print(i)', ('SyntaxError',), error=True),
    'many prints': Cell('for i in range(200_000): print("line", i)', ('line 0\n', 'line 199999', 'lines cut')),
    'one long line': Cell('print("x"*500_000)', ('characters', 'cut')),
    'progress bar': Cell('import sys\nfor i in range(101): print(f"\\r{i}% done", end="", file=sys.stderr, flush=True)', ('100% done', '[stderr]'), ('\n50% done', '\r'), longest=100),
    'tqdm in a notebook': Cell('from tqdm.notebook import tqdm\nfor i in tqdm(range(5), desc="work"): pass', ('work', '5/5', '100%'), ('0/5',), longest=400, needs=('tqdm', 'ipywidgets')),
    'html': Cell('from IPython.display import HTML\nHTML("<style>b {color: red}</style><script>alert(1)</script><h2>Report</h2><ul><li>one</li><li><b>two</b></li></ul>")',
                 ('Report', 'one', 'two'), ('alert', 'color', '<li>'), needs=('markdownify',)),
    'html table': Cell('from IPython.display import HTML\nHTML("<table><tr><th>name</th><th>n</th></tr><tr><td>x</td><td>3</td></tr></table>")', ('| name | n |', '| x | 3 |'), ('<td>',), needs=('markdownify',)),
    'latex': Cell(r'from IPython.display import Math' '\n' r'Math(r"\alpha^2")', (r'\alpha^2',)),
    'markdown': Cell('from IPython.display import Markdown\nMarkdown("# Title\\n*text*")', ('# Title', '*text*')),
    'json': Cell('from IPython.display import JSON\nJSON({"a": [1, 2, {"b": None}]})', ('{"a": [1, 2, {"b": null}]}',)),
    'text for models': Cell('class Tree:\n    def _repr_mimebundle_(self, **kwargs): return {"text/llm+plain": "a tree with 3 leaves", "text/plain": "<Tree>", "text/html": "<svg>..."}\nTree()',
                            ('a tree with 3 leaves',), ('<svg>', '<Tree>')),
    'exit': Cell('import sys; sys.exit(3)', ('SystemExit: 3',), error=True),
    'warning': Cell('import warnings; warnings.warn("old name"); print("went on")', ('[stderr]', 'old name', 'went on')),
    'stderr between stdout': Cell('import sys\nprint("one", flush=True)\nprint("careful", file=sys.stderr, flush=True)\nprint("two")', ('one\n[stderr] careful\n', 'two')),
    'large picture': Cell('import zlib, struct, os, base64\ndef chunk(kind, data): return struct.pack(">I", len(data))+kind+data+struct.pack(">I", zlib.crc32(kind+data))\n'
                          'w = h = 1300\nraw = b"".join(b"\\0"+os.urandom(3*w) for _ in range(h))\n'
                          'png = b"\\x89PNG\\r\\n\\x1a\\n"+chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))+chunk(b"IDAT", zlib.compress(raw, 1))+chunk(b"IEND", b"")\n'
                          'from IPython.display import Image\nImage(png)', ('[image/png, 5,',), pictures=1, needs=('PIL',)),
    'audio': Cell('from IPython.display import Audio\nimport struct, io, wave\nf = io.BytesIO()\nw = wave.open(f, "wb"); w.setnchannels(1); w.setsampwidth(2); w.setframerate(8000); w.writeframes(bytes(20_000)); w.close()\n'
                  'Audio(f.getvalue())', ('[audio/wav, 20,044 bytes]',), ('<audio', '<source'), needs=('markdownify',)),
    'svg': Cell('from IPython.display import SVG\nSVG("<svg xmlns=\'http://www.w3.org/2000/svg\'><circle r=\'5\'/></svg>")', ('<circle r=', 'svg'),),
    'a failing command': Cell('!exit 3', ('[exit code 3]',), ('[no output]',)),
    'a large value': Cell('{i: str(i)*10 for i in range(5000)}', ("0: '0000000000'", 'cut')),
    'escapes': Cell('print("\\x1b[31mred\\x1b[0m \\x07bell")', ('red bell',), ('\x1b', '\x07')),
}
