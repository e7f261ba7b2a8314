"""The library's modules, classes and bases as syntax trees, read by `tools/stubs.py`"""
import importlib.util, sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT/'conkernelclient'

_spec = importlib.util.spec_from_file_location('stubs', ROOT/'tools'/'stubs.py')
stubs = importlib.util.module_from_spec(_spec)
sys.modules['stubs'] = stubs    # dataclasses look their module up
_spec.loader.exec_module(stubs)
