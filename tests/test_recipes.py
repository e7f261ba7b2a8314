"""The recipes for agent frameworks, as the tutorial has them, where the framework is installed"""
import asyncio, json
from pathlib import Path

import pytest
from conkernelclient import open_kernel
from fault_tools import SOON, until

RECIPES = Path(__file__).parent.parent/'nbs'/'tutorials'/'15_agent_frameworks.ipynb'

def recipe(package):
    "The names that the recipe for this package defines"
    pytest.importorskip(package)
    cells = [''.join(o['source']) for o in json.loads(RECIPES.read_text(encoding='utf-8'))['cells'] if o['cell_type'] == 'code']
    code, = [o for o in cells if f'from {package}' in o]
    space = dict(__name__='recipe')
    exec(code, space)
    return space

def test_each_recipe_is_short():
    cells = [o['source'] for o in json.loads(RECIPES.read_text(encoding='utf-8'))['cells'] if o['cell_type'] == 'code']
    assert len(cells) == 4 and all(len(o) <= 32 for o in cells)

async def test_langchain():
    make = recipe('langchain_core')['langchain_tool']
    async with open_kernel() as kc:
        tool = make(kc)
        assert (await tool.ainvoke(dict(code='x = 6*7; x')))[0]['text'] == '42\n'
        assert 'ZeroDivisionError' in (await tool.ainvoke(dict(code='print(x); 1/0')))[0]['text']
        call = asyncio.ensure_future(tool.ainvoke(dict(code='import time; time.sleep(60)')))
        await until(lambda: kc.queue and kc.queue[0].state == 'running')
        call.cancel()
        assert (await tool.ainvoke(dict(code='x')))[0]['text'] == '42\n'

async def test_pydantic_ai():
    make = recipe('pydantic_ai')['kernel_toolset']
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
    from pydantic_ai.models.function import FunctionModel
    calls = iter([('run_python', dict(code='x = 6*7; x')), ('run_python', dict(code='1/0')), ('variables', {})])
    seen = []
    def model(messages, info):
        seen.extend(str(o.content) for o in messages[-1].parts if isinstance(o, ToolReturnPart))
        call = next(calls, None)
        return ModelResponse(parts=[TextPart('done') if call is None else ToolCallPart(*call)])
    async with open_kernel() as kc:
        assert (await Agent(FunctionModel(model), toolsets=[make(kc)]).run('go')).output == 'done'
    assert '42' in seen[0] and 'ZeroDivisionError' in seen[1] and 'x: int = 42' in seen[2]

async def test_autogen():
    space = recipe('autogen_core')
    from autogen_core import CancellationToken
    from autogen_core.code_executor import CodeBlock
    def blocks(*codes): return [CodeBlock(o, 'python') for o in codes]
    async with space['KernelExecutor']() as executor:
        res = await executor.execute_code_blocks(blocks('x = 6*7', 'print(x)', '1/0', 'print("never")'), CancellationToken())
        assert res.exit_code == 1 and '42\n' in res.output and 'ZeroDivisionError' in res.output and 'never' not in res.output
        token = CancellationToken()
        call = asyncio.ensure_future(executor.execute_code_blocks(blocks('import time; time.sleep(60)'), token))
        await until(lambda: executor.kc.queue and executor.kc.queue[0].state == 'running')
        token.cancel()
        with pytest.raises(asyncio.CancelledError): await asyncio.wait_for(call, SOON)
        assert (await executor.execute_code_blocks(blocks('x'), CancellationToken())).output == '42\n'
        executor.timeout = .5
        with pytest.raises(asyncio.TimeoutError): await executor.execute_code_blocks(blocks('import time; time.sleep(60)'), CancellationToken())

def test_smolagents():
    make = recipe('smolagents')['SmolKernel']
    from smolagents import FinalAnswerTool
    with open_kernel() as k:
        run = make(k)
        run.send_tools(dict(final_answer=FinalAnswerTool()))
        run.send_variables(dict(x=6))
        out = run('print("thinking")\ny = x*7\ny')
        assert not out.is_final_answer and out.logs == 'thinking\n42\n'
        with pytest.raises(RuntimeError, match='ZeroDivisionError'): run('1/0')
        out = run('print("so"); final_answer(y)')
        assert out.is_final_answer and out.output == 42 and out.logs == 'so\n'
