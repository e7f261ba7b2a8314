"""What a call of the MCP server costs on top of the kernel, and how many packages its extra needs.

    python benchmarks/mcp_call.py                # 200 rounds in each form of the protocol
    python benchmarks/mcp_call.py --packages     # also installs the extra into a fresh environment, and counts

One kernel, two ways to run `1+1` in it, in turn: `kc.run` in this process, and the tool `run` of a server that has joined
the kernel, over stdin and stdout, by the SDK's own client. The medians, and that of the differences round by round. A shared
machine makes both slower. The bars: less than 50 ms on top, and 60 packages or fewer beside this one.
"""
import argparse, asyncio, os, subprocess, sys, tempfile, time
from pathlib import Path
from statistics import median, quantiles

from mcp import Client, StdioServerParameters
from conkernelclient import open_kernel

ROOT = Path(__file__).resolve().parent.parent

async def timed(make) -> float: # ms
    begin = time.perf_counter()
    await make()
    return (time.perf_counter()-begin)*1000

async def measure(mode: str, rounds: int) -> None:
    async with open_kernel() as kc:
        file = await kc.eval('__import__("ipykernel").get_connection_file()')
        server = StdioServerParameters(command=sys.executable, args=['-m', 'conkernelclient.mcp', '--connect', file],
                                       env=os.environ | dict(PYTHONPATH=str(ROOT)))
        async with Client(server, mode=mode) as client:
            async def direct(): assert (await kc.run('1+1')).text == '2\n'
            async def call(): assert (await client.call_tool('run', dict(code='1+1'))).content[0].text == '2\n'
            for _ in range(10): await direct(), await call()
            pairs = []
            for i in range(rounds):
                if i%2: pairs.append((await timed(direct), await timed(call)))
                else: pairs.append((await timed(call), await timed(direct))[::-1])
    ours, theirs = zip(*pairs)
    on_top = [b-a for a, b in pairs]
    low, _, high = quantiles(on_top, n=4)
    print(f'{mode:7} kc.run {median(ours):5.1f} ms · MCP call {median(theirs):5.1f} ms · on top {median(on_top):5.1f} ms (quartiles {low:.1f} to {high:.1f})')

def packages() -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder)/('Scripts' if os.name == 'nt' else 'bin')/'python'
        subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
        pip = [sys.executable, '-m', 'pip', '--python', str(python)]
        subprocess.run([*pip, 'install', '-q', f'{ROOT}[mcp]'], check=True, stderr=subprocess.DEVNULL)
        listed = subprocess.run([*pip, 'list', '--format=freeze'], check=True, capture_output=True, text=True).stdout.split()
    print(f'{len(listed)-1} packages beside conkernelclient with the extra')

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=200)
    parser.add_argument('--packages', action='store_true')
    args = parser.parse_args()
    for mode in ('auto', 'legacy'): asyncio.run(measure(mode, args.rounds))
    if args.packages: packages()
