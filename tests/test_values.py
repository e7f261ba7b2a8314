"""Values between client and kernel: what travels, what is refused, and that nothing is run on the way."""
import asyncio, datetime as dt, importlib.util, math, sys, types
from decimal import Decimal
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from conkernelclient import ExecutionError, NoReplyError, open_kernel, run_kernel
from conkernelclient.cells import wire
from conkernelclient.cells.values import HERE, MODULE, assignments

bound = 60
both_transports = 'slow'

def package(name):
    if importlib.util.find_spec(name) is None: pytest.skip(f'{name} is not installed')
    return importlib.import_module(name)


PLAIN = [None, True, 0, -1, 10**400, 1.5, math.inf, -math.inf, '', 'é\ud800\n', b'', b'\x00\xff', bytearray(b'x'), 1+2j, (), (1,), [], [[[]]],
         set(), {'a', 1}, frozenset({2}), {}, {1: 'a'}, {'!': 1}, {'!': 'tuple', 'v': [1]}, {(1, 2): {'!': ()}}, {None: [1, (2,)]}, range(1, 9, 2),
         Decimal('1.10'), Fraction(1, 3), UUID(int=7), dt.date(2026, 11, 26), dt.time(1, 2, 3, 4), dt.timedelta(-1, 5, 6),
         dt.datetime(2026, 11, 26, 1, 2, 3), dt.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo('Europe/Berlin'), fold=1),
         dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc), dt.time(1, tzinfo=dt.timezone(dt.timedelta(hours=-3.5))), '{helper}', "'''\\", [1]*5000]

@pytest.mark.parametrize('value', PLAIN, ids=lambda o: f'{type(o).__name__} {sorted(o, key=str) if isinstance(o, set) else o!r}'[:40].encode('ascii', 'replace').decode())
async def test_there_and_back(kc, value):
    await kc.push(v=value)
    assert await kc.eval('type(v).__name__') == type(value).__name__
    back = await kc.eval('v')
    assert (type(back), back) == (type(value), value)
    assert getattr(back, 'tzinfo', None) == getattr(value, 'tzinfo', None) and getattr(back, 'fold', 0) == getattr(value, 'fold', 0)
    assert await kc.call('copy.copy', value) == value

async def test_nan_anywhere(kc):
    await kc.push(v=[math.nan, {'a': (math.nan,)}])
    assert repr(await kc.eval('v, float("nan")')) == "([nan, {'a': (nan,)}], nan)"

@pytest.mark.parametrize('big', [10, 10**6], ids=['inside', 'beside'])
async def test_buffers(kc, big):
    "Small ones travel inside the text, large ones beside it"
    value = [b'a'*big, {'deep': (bytearray(b'b'*big),)}]
    await kc.push(v=value)
    assert await kc.eval('v') == value
    assert await kc.call('copy.deepcopy', value) == value

async def test_the_users_namespace_is_not_touched(kc):
    "Neither names nor history are left behind, and the count stays"
    before = await kc.run('before = {*globals(), "before", "fresh"}; len(In)')
    await kc.push(fresh=b'x'*10**5)
    await kc.eval('fresh')
    await kc.call('len', [1.5])
    after = await kc.run('len(In)')
    assert int(after.text) == int(before.text)+1 and after.execution_count == before.execution_count+1
    assert await kc.eval('[o for o in globals() if o not in before and not o.startswith("_")]') == []

REFUSED = {'object()': 'object', 'lambda: 1': 'function', 'open': '', '(i for i in ())': 'generator', 'type("C", (int,), {})(1).__class__': 'type',
           '__import__("collections").OrderedDict(a=1)': 'OrderedDict', '[1, {"a": object()}]': 'object', '...': 'ellipsis',
           '(lambda o: [o.append(o), o][1])([])': 'contains itself'}

@pytest.mark.parametrize('expr', REFUSED)
async def test_what_cannot_travel_is_refused(kc, expr):
    with pytest.raises(ValueError, match='cannot travel') as e: await kc.eval(expr)
    assert REFUSED[expr] in str(e.value) and not isinstance(e.value, ExecutionError)
    with pytest.raises(ValueError, match='v: .*cannot travel'): await kc.push(a=1, v=eval(expr))
    with pytest.raises(ExecutionError, match='NameError'): await kc.eval('a_of_no_cell')
    with pytest.raises(ValueError, match='cannot travel'): await kc.call('len', eval(expr))

async def test_a_repr_that_is_a_literal(kc):
    "As it always was: a value of an unknown type whose repr is a literal is that literal"
    await kc.run("class Size:\n    def __repr__(self): return '(100, 3)'\nclass Text(str): pass")
    assert await kc.eval('Size(), Text("a")') == ((100, 3), 'a')

async def test_the_expression_fails(kc):
    for expr, name in {'1/0': 'ZeroDivisionError', '1+': 'SyntaxError', '{}["x"]': 'KeyError'}.items():
        with pytest.raises(ExecutionError) as e: await kc.eval(expr)
        assert e.value.result.error.ename == name

async def test_an_expression_is_evaluated_once(kc):
    "Also where the helper in the kernel is gone"
    await kc.eval('1')
    await kc.run(f'import sys; del sys.modules[{MODULE!r}]; seen = []')
    assert await kc.eval('seen.append(1) or len(seen)  # a comment') == 1
    await kc.run(f'del sys.modules[{MODULE!r}]')
    assert await kc.call('seen.append', 2) is None and await kc.eval('seen') == [1, 2]
    await kc.run(f'del sys.modules[{MODULE!r}]')
    await kc.push(big=[1.5]*10_000)
    assert await kc.eval('len(big)') == 10_000

async def test_the_order_of_calls(kc):
    "The first question loads the helper, and stays in its place"
    for _ in range(3):
        await kc.run(f'import sys; sys.modules.pop({MODULE!r}, 0); x = 1')
        kc._helper_in = -1
        async def change(): await kc.run('x = 2')
        got, _ = await asyncio.gather(kc.eval('x'), change())
        assert got == 1

async def test_many_at_once(kc):
    await kc.run('async def f(i): return bytes([i])*20_000')
    got = await asyncio.gather(*[kc.call('f', i) for i in range(50)], *[kc.eval(f'b"x"*{20_000+i}') for i in range(50)])
    assert got == [*(bytes([i])*20_000 for i in range(50)), *(b'x'*(20_000+i) for i in range(50))]

async def test_subshells(kc):
    async with kc.subshell() as sh:
        slow = kc.run('import threading; go = threading.Event(); go.wait(30)')
        await slow.wait_until(lambda: slow.inside)
        await sh.push(raw=b'x'*50_000, when=dt.date(2026, 1, 1))
        assert await sh.eval('raw, when') == (b'x'*50_000, dt.date(2026, 1, 1))
        assert await sh.call('len', [1, 2]) == 2 and not slow.done()
        await sh.call('go.set')
        await slow

async def test_calls(kc):
    await kc.run("import asyncio\nclass Box:\n    def get(self, *args, **kwargs): return args, kwargs\nbox = Box()\n"
                 "async def slowly(): await asyncio.sleep(.01); return 'done'\nasync def bad(): raise KeyError('mine')\n"
                 "def prints(): print('told')")
    assert await kc.call('box.get', 1, timeout=2, name='x') == ((1,), dict(timeout=2, name='x'))
    assert await kc.call('slowly') == 'done'
    assert await kc.call('xml.sax.saxutils.escape', '<') == '&lt;' and await kc.call('max', 3, 4) == 4
    with pytest.raises(ExecutionError, match='KeyError: \'mine\'') as e: await kc.call('bad')
    assert '__future__' not in str(e.value) and len(str(e.value)) < 3000   # the traceback shows the call, and not the helper
    for name, error in dict(nothing='NameError', **{'os.nothing': 'AttributeError', 'no_such_module.f': 'ModuleNotFoundError'}).items():
        with pytest.raises(ExecutionError) as e: await kc.call(name)
        assert e.value.result.error.ename == error
    for name in '', '1', 'f()', 'a..b', 'a b':
        with pytest.raises(ValueError, match='not a name'): await kc.call(name)

async def test_a_call_that_is_cancelled_is_interrupted(kc):
    await kc.run('import asyncio, time\nasync def forever(): await asyncio.sleep(60)\ndef busy(): time.sleep(60)')
    for name in 'forever', 'busy':
        task = asyncio.create_task(kc.call(name))
        await asyncio.sleep(0)
        run = kc.queue[-1]
        await run.wait_until(lambda: run.inside)
        task.cancel()
        with pytest.raises(asyncio.CancelledError): await task
        assert await kc.eval('6*7') == 42

async def test_a_restart_takes_the_helper_along():
    async with run_kernel() as (km, kc):
        assert await kc.eval('1') == 1
        await kc.restart()
        assert await kc.eval('b"x"*50_000') == b'x'*50_000 and await kc.call('len', 'ab') == 2

@pytest.mark.zmq_only('behind a server buffers come with the reply, which is not lost alone')
async def test_lost_buffers_are_said(kc, monkeypatch):
    await kc.eval('1')
    await kc.run(f'import sys; m = sys.modules[{MODULE!r}]; send = m.publish; m.publish = m.give.__globals__["publish"] = lambda buffers: True')
    try:
        with pytest.raises(NoReplyError, match='lost on its way'): await kc.eval('b"x"*50_000')
    finally: await kc.run('m.publish = send')
    assert len(await kc.eval('b"x"*50_000')) == 50_000

async def test_without_messages_of_its_own(kc, monkeypatch):
    "In kernels other than ipykernel, and behind a server: everything is in the reply"
    monkeypatch.setitem(kc.connection.info, 'implementation', 'other')
    value = [b'x'*50_000, 1.5]
    await kc.push(v=value)
    run = kc.run('1')
    await run
    assert await kc.eval('v') == value and await kc.call('copy.copy', value) == value

def test_reading_runs_no_code():
    "Whatever a kernel sends: a value or a ValueError"
    for text in ['{"!": "array", "v": ["|O", [1], 0]}', '{"!": "array", "v": [[["a", "|O"]], [1], 0]}', '{"!": "array", "v": ["<f8", [99], 0]}',
                 '{"!": "scalar", "v": ["|O", "AAAAAAAAAAA=", null]}', '{"!": "__import__", "v": ["os"]}', '{"!": "datetime", "v": ["x", 0, null]}',
                 '{"!": "datetime", "v": ["2026-01-01", 0, "../../etc/passwd"]}', '{"!": "set", "v": [[]]}', '{"!": "dict", "v": [[[], 1]]}',
                 '{"!": "table", "v": [0]}', '{"!": ["x"], "v": []}', '{"!": "range", "v": [0, 1, 0]}', '['*100_000]:
        with pytest.raises(ValueError): wire.loads(text, [b'12345678'])

def test_names_and_literals():
    assert assignments(dict(a=1, b='x')) == "a = 1\nb = 'x'"
    for values in {'a b': 1}, {'class': 1}, {'': 1}:
        with pytest.raises(ValueError, match='not a name'): assignments(values)
    with pytest.raises(ValueError, match='x: the repr of this float is not a Python literal'): assignments(dict(x=math.nan))

async def test_names_are_checked_first(kc):
    for values in {'a b': dt.date(2026, 1, 1)}, {'class': b'x'*10**5}:
        with pytest.raises(ValueError, match='not a name'): await kc.push(**values)


# numpy and pandas: the kernel has the packages of this process

def arrays(np):
    return [np.arange(6).reshape(2, 3).T, np.array(5), np.zeros((0, 3)), np.array(['a', 'bb']), np.array([1, 'a', None], object), np.array([b'x']),
            np.zeros(2, [('a', 'i4'), ('b', 'f8', (2,))]), np.array(['2026-01-01', 'NaT'], 'M8[ns]'), np.array([1.5, np.nan], '>f4'), np.arange(1e5),
            np.array([True]), np.array([1+2j]), np.zeros((2, 2), 'U0'), np.array([[[1, 2], None]], object), np.array([1, 2], 'm8[s]')]

async def test_numpy(kc):
    np = package('numpy')
    if not (await kc.eval('__import__("importlib.util").util.find_spec("numpy") is not None')): pytest.skip('the kernel has no numpy')
    for a in arrays(np):
        await kc.push(a=a)
        back = await kc.eval('a')
        assert type(back) is np.ndarray and (back.dtype, back.shape, repr(back)) == (a.dtype, a.shape, repr(a))
        assert back.flags.writeable and await kc.eval('a.flags.writeable and type(a).__name__') == 'ndarray'
    for s in np.float64(2.5), np.int8(3), np.bool_(True), np.str_('a'), np.datetime64('2026-01-01', 'ns'), np.complex64(1j), np.float16('nan'), np.timedelta64(3, 's'):
        await kc.push(s=s)
        back = await kc.eval('s')
        assert (type(back), repr(back)) == (type(s), repr(s))
    assert (await kc.call('numpy.cumsum', np.arange(10**5))).shape == (10**5,)
    for bad in 'numpy.ma.array([1])', 'numpy.zeros(1, [("a", "O")])', 'numpy.matrix([1])':
        await kc.run('import numpy')
        with pytest.raises(ValueError, match='cannot travel|holds objects'): await kc.eval(bad)

async def test_a_scalar_without_numpy_here(kc, monkeypatch):
    package('numpy')
    if not (await kc.eval('__import__("importlib.util").util.find_spec("numpy") is not None')): pytest.skip('the kernel has no numpy')
    await kc.run('import numpy')
    monkeypatch.setitem(sys.modules, 'numpy', None)
    assert await kc.eval('[numpy.int64(3), numpy.float32(.5), numpy.bool_(1)]') == [3, .5, True]
    with pytest.raises(ValueError, match='an array needs numpy in the client, where it is not installed: pip install numpy'): await kc.eval('numpy.arange(3)')

def frames(pd):
    times = pd.date_range('2026-01-01', periods=2, tz='Europe/Berlin')
    return [pd.DataFrame({'a': [1, 2], 'b': ['x', None], 'c': pd.Categorical(['u', 'v']), 'd': times, 'e': [1.5, None]}, index=['p', 'q']),
            pd.DataFrame(), pd.DataFrame({0: [1], 1: [2]}), pd.DataFrame({'a': range(10**5)}), pd.DataFrame({'a': [1]}, index=times[:1]),
            pd.DataFrame({('a', 1): [1], ('b', 2): [2]}), pd.DataFrame([[1, 2]], columns=['a', 'a']), pd.DataFrame([[1, 2]], columns=[1, 'a']),
            pd.DataFrame([[1, 2]], columns=times), pd.DataFrame([[1]], columns=pd.Index(['a'], name='n')), pd.DataFrame({'a': [1, 2]}, index=pd.period_range('2026', periods=2, freq='D')), pd.Series([1, 2], name='n'), pd.Series([1, 2], name=('a', 1)), pd.Series(dtype=float),
            pd.Series([1, None], dtype='Int64', index=pd.MultiIndex.from_tuples([(1, 'a'), (2, 'b')], names=['x', 'y'])),
            pd.Index(['a', 'b'], name='n'), pd.RangeIndex(3), pd.MultiIndex.from_tuples([(1, 2)]), pd.period_range('2026', periods=2, freq='D'),
            pd.interval_range(0, 2), pd.Timestamp('2026-01-01 02:03', tz='Europe/Berlin'), pd.Timestamp('2026-01-01'), pd.Timedelta('1s'), pd.NaT, pd.NA]

async def test_pandas(kc):
    pd, _ = package('pandas'), package('pyarrow')
    if not (await kc.eval('all(map(__import__("importlib.util").util.find_spec, ["pandas", "pyarrow"]))')): pytest.skip('the kernel has no pandas')
    for value in frames(pd):
        await kc.push(v=value)
        back = await kc.eval('v')
        assert type(back) is type(value) and repr(back) == repr(value)
        if isinstance(value, pd.DataFrame): pd.testing.assert_frame_equal(back, value, check_freq=False)
        if isinstance(value, pd.Series): pd.testing.assert_series_equal(back, value)
    assert (await kc.eval('{"parts": [v, 1]}'))['parts'][1] == 1
    for bad, why in {'pandas.DataFrame({"a": [object()]})': 'Could not convert',
                     'pandas.Interval(1, 2)': 'cannot travel'}.items():
        await kc.run('import pandas')
        with pytest.raises(ValueError, match=why): await kc.eval(bad)

async def test_a_frame_where_pyarrow_is_missing(kc, monkeypatch):
    pd, _ = package('pandas'), package('pyarrow')
    if not (await kc.eval('all(map(__import__("importlib.util").util.find_spec, ["pandas", "pyarrow"]))')): pytest.skip('the kernel has no pandas')
    frame = pd.DataFrame({'a': [1]})
    await kc.push(f=frame)
    with monkeypatch.context() as m:
        m.setitem(sys.modules, 'pyarrow', None)
        with pytest.raises(ValueError, match='a pandas frame travels as Arrow, and needs pyarrow in the client, where it is not installed'): await kc.push(f=frame)
        with pytest.raises(ValueError, match='needs pyarrow in the client'): await kc.eval('f')
        m.setitem(sys.modules, 'pyarrow', types.SimpleNamespace(__version__='14.0.0'))
        with pytest.raises(ValueError, match='pyarrow 15 or later in the client'): await kc.eval('f')
    await kc.run('import sys; kept = sys.modules["pyarrow"]; sys.modules["pyarrow"] = None')
    try:
        with pytest.raises(ValueError, match='needs pyarrow in the kernel, where it is not installed: pip install pyarrow'): await kc.eval('f')
        with pytest.raises(ValueError, match='needs pyarrow in the kernel'): await kc.push(g=frame)
        with pytest.raises(ValueError, match='needs pyarrow in the kernel'): await kc.call('len', frame)
    finally: await kc.run('sys.modules["pyarrow"] = kept')


def test_without_asyncio():
    with open_kernel() as k:
        k.push(when=dt.date(2026, 1, 1), raw=b'x'*50_000)
        assert k.eval('when, len(raw)') == (dt.date(2026, 1, 1), 50_000)
        assert k.call('math.hypot', 3, 4) == 5 and k.call('sorted', [2, 1], reverse=True) == [2, 1]
        with pytest.raises(ExecutionError, match='ZeroDivisionError'): k.call('divmod', 1, 0)
        with k.subshell() as sh: assert sh.call('len', 'abc') == 3
