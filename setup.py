"""Package `conkernelclient` from what `settings.ini` says."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

ROOT = Path(__file__).parent
STATUSES = ['1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable', '6 - Mature', '7 - Inactive']
PYTHONS = ['3.11', '3.12', '3.13']   # those with which tests and pages are run
SPDX = {'apache2': 'Apache-2.0', 'mit': 'MIT', 'bsd3': 'BSD-3-Clause'}

config = ConfigParser()
config.read(ROOT/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

lib = cfg['lib_name']
docs = cfg['doc_host'] + cfg['doc_baseurl']

setup(
    name=lib,
    version=cfg['version'],
    description=cfg['description'],
    long_description=(ROOT/'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    url=cfg['git_url'],
    project_urls={'Documentation': docs, 'Changelog': f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md"},
    author=cfg['author'],
    author_email=cfg['author_email'],
    license_expression=SPDX[cfg['license']],
    license_files=['LICENSE'],
    keywords=cfg['keywords'].split(),
    classifiers=[
        f"Development Status :: {STATUSES[int(cfg['status'])]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        'Framework :: AsyncIO',
        'Framework :: Jupyter',
        'Typing :: Typed',
        *[f'Programming Language :: Python :: {o}' for o in PYTHONS[PYTHONS.index(cfg['min_python']):]],
    ],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[lib, f'{lib}.*']),
    package_data={lib: ['py.typed', '*.pyi']},
    install_requires=cfg['requirements'].split(),
    extras_require={'dev': cfg['dev_requirements'].split(), 'notebook': cfg['notebook_requirements'].split(),
                    'data': cfg['data_requirements'].split(), 'llm': cfg['llm_requirements'].split(),
                    'mcp': cfg['mcp_requirements'].split(), 'server': cfg['server_requirements'].split()},
    # nbdev finds the documentation links of a library's names through the first entry point.
    entry_points={'nbdev': [f'{lib}={lib}._modidx:d'], 'console_scripts': cfg['console_scripts'].split(),
                  'jupyter_client.kernel_provisioners': [f'fork={lib}.kernels.fork:ForkProvisioner']},
    zip_safe=False,
)
