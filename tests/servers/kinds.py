"""Servers that cannot be installed beside this library, each in an environment of its own: what to install, how to start it.

All of them run the kernels of the Python that runs the checks (but `Provisioners`, whose kernels are started by a program
of its own), so a difference is the server's.
"""
import asyncio, getpass, json, os, shutil, subprocess, sys, tempfile, time
from pathlib import Path

import psutil
from conkernelclient import ServerError
from conkernelclient.transports.websocket import Server
from proxy import Jupyter, free_port


class CannotInstall(Exception): "The environment of a server cannot be made here"


class Kind(Jupyter):
    "A server in an environment of its own, in the folder `envs/NAME`"
    name: str
    packages: tuple[str, ...]     # from PyPI
    npm: tuple[str, ...] = ()     # from npm
    impossible: dict[str, str] = {}   # checks that cannot pass there, and why
    soon = 30                     # seconds: far more than anything takes there that has no bound of its own

    def __init__(self, envs: Path, port=None):
        super().__init__(port=port)
        self.env = envs/self.name
        self.work = Path(tempfile.mkdtemp(prefix=f'{self.name}-'))
        self.logfile = self.work/'server.log'

    def program(self, name): return str(self.env/'bin'/name)

    def install(self):
        "Make the environment, unless it is there"
        done, wanted = self.env/'installed', '\n'.join((sys.version, *self.packages, *self.npm))
        if done.exists() and done.read_text() == wanted: return
        shutil.rmtree(self.env, ignore_errors=True)
        self._run(sys.executable, '-m', 'venv', str(self.env))
        self._run(self.program('pip'), 'install', '-q', '--disable-pip-version-check', *self.packages)
        if self.npm: self._run('npm', 'install', '--prefix', str(self.env/'npm'), *self.npm)
        done.write_text(wanted)

    def _run(self, *command):
        try: res = subprocess.run(command, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as e: raise CannotInstall(f'{" ".join(command)}: {e}') from None
        if res.returncode: raise CannotInstall(f'{" ".join(command)}: exit code {res.returncode}\n{res.stderr.strip()[-2000:]}')
        return res.stdout

    def environ(self):
        "Environment variables of the server: its own programs first, and one kernelspec, `python3`"
        spec = self.work/'share/kernels/python3/kernel.json'
        spec.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}']
        spec.write_text(json.dumps(dict(argv=argv, display_name='Python 3', language='python')))
        gone = 'PYTHONPATH', 'JUPYTER_GATEWAY_URL', 'JUPYTER_GATEWAY_AUTH_TOKEN'
        return {k: v for k, v in os.environ.items() if k not in gone} | dict(
            PATH=f'{self.env/"bin"}:{os.environ["PATH"]}', JUPYTER_PATH=str(self.work/'share'), JUPYTER_DATA_DIR=str(self.work/'data'),
            JUPYTER_RUNTIME_DIR=str(self.work/'runtime'), JUPYTER_CONFIG_DIR=str(self.work/'config'))

    def start(self):
        with open(self.logfile, 'ab') as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                                            env=self.environ(), cwd=self.work)
        return self

    def said(self): return self.logfile.read_text(errors='replace')[-3000:] if self.logfile.exists() else ''


class Enterprise(Kind):
    "Jupyter Enterprise Gateway: it wants a jupyter_server and a jupyter_client of years ago"
    name = 'enterprise'
    packages = 'jupyter_enterprise_gateway==3.3.*',
    kernels = dict(env=dict(KERNEL_USERNAME='ann'))   # it refuses to start kernels of root

    def command(self):
        return [self.program('jupyter-enterprisegateway'), '--ip=127.0.0.1', f'--port={self.port}', '--port_retries=0',
                f'--EnterpriseGatewayApp.auth_token={self.token}', '--EnterpriseGatewayApp.list_kernels=True',
                '--KernelRestarter.time_to_dead=0.5']


class Provisioners(Kind):
    """A Jupyter Server whose kernels are started by gateway_provisioners, as on another host

    Its kernels take 29 s to end. Each has a child process that listens for the server's signals, which ends first and which
    the launcher does not collect; ipykernel (7.4) signals its children until none is left, or 29 s are over, and counts those
    that have ended. The server stands still for as long: its loop waits for the kernel's process. It is slow between
    those times, too (40 ms for a cell): its loop waits for launchers, 10 ms at each turn.
    """
    name = 'provisioners'
    soon, tells = 120, False
    packages = 'gateway_provisioners==0.5.*', 'jupyter_server', 'ipykernel'
    kernels = dict(name='ssh_python')
    impossible = dict(
        test_the_kernel_dies_and_the_server_restarts_it='it restarts no kernel that dies',
        test_deleted_by_somebody_else='it stands still before it passes on the last words of a kernel, so a client with nothing in flight '
                                      'learns of the end with its next request: see test_deleted_there')

    def environ(self):
        if not (self.work/'share/jupyter').exists():
            self._run(self.program('jupyter-ssh-spec'), 'install', '--prefix', str(self.work))
        return super().environ() | dict(JUPYTER_PATH=str(self.work/'share/jupyter'), KERNEL_USERNAME='ann',   # (it starts none of root)
                                      GP_KERNEL_LOG_DIR=str(self.work))

    def command(self): return [self.program('python'), *super().command()[1:]]


SSHD = '''
Port {port}
ListenAddress 127.0.0.2
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PidFile none
'''

COLLECTING = '''
import psutil
from ipykernel.ipkernel import IPythonKernel

class Kernel(IPythonKernel):
    "Does not wait for children that have ended"
    def _process_children(self): return [o for o in super()._process_children() if o.status() != psutil.STATUS_ZOMBIE]
'''

class Ssh(Provisioners):
    """The same, and its kernels start over ssh: to it, 127.0.0.2 is another host, with an sshd of the checks

    The keys are made for each start, and the server's home is a folder of its own, so nobody's ~/.ssh is read or written.
    These kernels do not wait for children that have ended. Else a kernel that is deleted or restarted would go on to answer
    its clients for 29 s, as the server waits for no process on another host.
    """
    name = 'ssh'
    soon = 30
    impossible = dict(test_the_kernel_dies_and_the_server_restarts_it='it restarts no kernel that dies')
    sshd = None

    def __init__(self, envs, port=None):
        super().__init__(envs, port)
        self.env = envs/Provisioners.name

    def install(self):
        super().install()
        if not self.find('sshd') or not self.find('ssh-keygen'): raise CannotInstall('sshd and ssh-keygen: install openssh-server')

    def find(self, name): return shutil.which(name, path=f'{os.environ["PATH"]}:/usr/sbin:/sbin')

    def environ(self):
        env = super().environ()
        spec = self.work/'share/jupyter/kernels/ssh_python/kernel.json'   # (there, nothing is left of the server's environment)
        data = json.loads(spec.read_text())
        data['argv'][0] = self.program('python')
        (Path(data['argv'][1]).parent/'collecting.py').write_text(COLLECTING)
        data['argv'][data['argv'].index('--kernel-class-name')+1] = 'collecting.Kernel'
        data['env'] = {k: env[k] for k in ('IPYTHONDIR', 'LANG', 'LC_ALL') if k in env}
        spec.write_text(json.dumps(data))
        return env | dict(HOME=str(self.work), GP_REMOTE_HOSTS='127.0.0.2', GP_REMOTE_USER=getpass.getuser(), GP_SSH_PORT=str(self.ssh_port))

    def start(self):
        self.stop()
        keys = self.work/'.ssh'
        if not keys.exists():
            keys.mkdir(mode=0o700)
            for o in 'host', 'user': self._run(self.find('ssh-keygen'), '-q', '-t', 'ed25519', '-N', '', '-f', str(keys/o))
            (keys/'user').rename(keys/'id_ed25519')
        self.ssh_port = free_port()
        (keys/'known_hosts').write_text(f'[127.0.0.2]:{self.ssh_port} {(keys/"host.pub").read_text()}')
        config = keys/'sshd_config'
        config.write_text(SSHD.format(port=self.ssh_port, keys=keys))
        if os.getuid() == 0: os.makedirs('/run/sshd', exist_ok=True)   # (as root, sshd wants this empty folder)
        with open(self.work/'sshd.log', 'ab') as log:
            self.sshd = subprocess.Popen([self.find('sshd'), '-D', '-e', '-f', str(config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return super().start()

    def stop(self, *args):
        super().stop(*args)
        if self.sshd is not None:
            self.sshd.terminate()
            self.sshd.wait()
            self.sshd = None
        for o in psutil.process_iter():   # kernels that are left: they are no children of the server
            try:
                if any(str(self.work) in arg for arg in o.cmdline()): o.kill()
            except psutil.Error: pass   # it has ended


class Jupygate(Kind):
    "A small gateway of others: legacy protocol only, no kernelspecs"
    name = 'jupygate'
    packages = 'jupygate', 'ipymini', 'websockets'   # (without the last one, its server takes no WebSockets)
    impossible = (dict(test_the_kernel_dies_and_the_server_restarts_it='it restarts no kernel that dies') |
        dict.fromkeys(('test_a_reply_that_is_lost_in_the_outage', 'test_a_run_says_that_it_is_incomplete', 'test_cut_beside_another_client'),
                      'it keeps what comes for a client that is away, also beside others') |
        dict.fromkeys(('test_deleted_by_somebody_else', 'test_deleted_in_an_outage'),
                      'it tells nobody of a deletion, and has other words for it: see test_deleted_there'))

    def command(self):
        argv = [sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}']
        code = f'from jupygate.core import create_app, serve; serve(create_app({argv!r}, auth_token={self.token!r}), port={self.port})'
        return [self.program('python'), '-c', code]

    async def ready(self):
        until = time.monotonic()+60
        while True:
            try: return await self.get('api/kernels')
            except ServerError:
                if time.monotonic() > until or self.process.poll() is not None: raise
                await asyncio.sleep(.1)


CONFIG = '''
c = get_config()
c.JupyterHub.bind_url = 'http://127.0.0.1:{port}'
c.JupyterHub.hub_port = {hub_port}
c.ConfigurableHTTPProxy.api_url = 'http://127.0.0.1:{proxy_port}'
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.ConfigurableHTTPProxy.pid_file = {pid_file!r}
c.JupyterHub.db_url = 'sqlite://'
c.JupyterHub.cookie_secret_file = {cookies!r}
c.JupyterHub.authenticator_class = 'dummy'
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = 'simple'
c.Spawner.cmd = [{singleuser!r}]
c.Spawner.args = ['--allow-root', '--KernelRestarter.time_to_dead=0.5', '--KernelManager.transport=ipc']   # (other processes may take a free port)
c.Spawner.env_keep = ['PATH', 'JUPYTER_PATH', 'IPYTHONDIR', 'LANG', 'LC_ALL']
c.JupyterHub.services = [dict(name='checks', api_token={admin!r})]
c.JupyterHub.load_roles = [dict(name='checks', scopes=['admin:users', 'admin:servers', 'tokens', 'access:servers'], services=['checks'])]
'''

class Hub(Kind):
    "A JupyterHub with its proxy, and the server of its user *ann*"
    name = 'hub'
    packages = 'jupyterhub==6.*', 'jupyter_server', 'ipykernel'
    npm = 'configurable-http-proxy',
    path = '/user/ann'
    admin = 'the-token-of-the-checks'

    def command(self):
        config, files = self.work/'jupyterhub_config.py', self.work
        config.write_text(CONFIG.format(
            port=self.port, hub_port=free_port(), proxy_port=free_port(), admin=self.admin, singleuser=self.program('jupyterhub-singleuser'),
            proxy=str(self.env/'npm/node_modules/.bin/configurable-http-proxy'), pid_file=str(files/'proxy.pid'), cookies=str(files/'cookies')))
        return [self.program('jupyterhub'), '-f', str(config)]

    async def ask(self, method, path, body=None):
        "Ask the hub itself"
        return await Server(f'http://127.0.0.1:{self.port}', self.admin).fetch(method, f'hub/api/{path}', body, 60)

    async def ready(self):
        until = time.monotonic()+90
        while True:
            try: await self.ask('GET', 'users')
            except ServerError:
                if time.monotonic() > until or self.process.poll() is not None: raise
                await asyncio.sleep(.2)
            else: break
        try: await self.ask('POST', 'users/ann', {})
        except ServerError as e:
            if e.code != 409: raise   # (there is one)
        self.token = await self.new_token()
        await self.start_server()

    async def new_token(self, *scopes):
        body = dict(note='checks', scopes=list(scopes or ['access:servers!user=ann']))
        return (await self.ask('POST', 'users/ann/tokens', body))['token']

    async def start_server(self):
        "Start the server of the user, and wait until it is there"
        for last in False, False, True:
            try: await self.ask('POST', 'users/ann/server', {})
            except ServerError as e:
                if last or e.code != 500: raise   # (somebody else has taken the port that the hub chose)
            else: break
        async with asyncio.timeout(60):
            while not (await self.ask('GET', 'users/ann'))['servers'].get('', {}).get('ready'): await asyncio.sleep(.1)

    async def stop_server(self):
        await self.ask('DELETE', 'users/ann/server')
        async with asyncio.timeout(60):
            while (await self.ask('GET', 'users/ann'))['servers']: await asyncio.sleep(.1)


KINDS = {o.name: o for o in (Hub, Enterprise, Provisioners, Ssh, Jupygate)}
