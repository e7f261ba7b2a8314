"""The tests of kernels behind a server once more, with a Kernel Gateway as the server"""
import asyncio

import pytest
from conkernelclient import ServerError, ServerKernelManager, list_kernels
from proxy import Gateway
from test_server import (
    kernel, test_a_large_output, test_a_thousand_in_flight, test_binary_buffers, test_control_overtakes, test_nbclient,
    test_one_cell_is_interrupted_and_no_other, test_requests, test_runs, test_subshells_and_map, test_two_clients_one_kernel)
from test_server_faults import (
    test_a_reply_that_is_lost_in_the_outage, test_cut_again_and_again_with_a_thousand_in_flight, test_cut_as_the_only_client,
    test_cut_beside_another_client, test_deleted_by_somebody_else, test_restart_by_somebody_else, test_restart_by_us,
    test_restart_in_an_outage, test_the_kernel_dies_and_the_server_restarts_it, test_the_kernel_dies_in_an_outage)

bound = 90
pytestmark = pytest.mark.filterwarnings('error')
slow_tests = set('''
    test_a_large_output test_a_thousand_in_flight test_binary_buffers test_control_overtakes test_nbclient
    test_one_cell_is_interrupted_and_no_other test_a_reply_that_is_lost_in_the_outage test_cut_beside_another_client
    test_cut_again_and_again_with_a_thousand_in_flight test_deleted_by_somebody_else test_the_kernel_dies_in_an_outage
    test_requests[legacy] test_runs[legacy] test_subshells_and_map[legacy] test_two_clients_one_kernel[legacy]'''.split())


@pytest.fixture(scope='module')
def jupyter():
    gateway = Gateway().start()
    asyncio.run(gateway.ready())
    try: yield gateway
    finally: gateway.stop()

async def test_what_a_gateway_does_not_tell(jupyter):
    "It lists its kernels only if it is told to"
    with pytest.raises(ServerError, match='HTTP 403'): await list_kernels(jupyter.url, jupyter.token)
    with pytest.raises(ServerError, match='has no kernel 11111111-2222-3333-4444-555555555555'):
        await ServerKernelManager(jupyter.url, jupyter.token).start_kernel('11111111-2222-3333-4444-555555555555')
    with pytest.raises(ServerError, match='HTTP 401'): await ServerKernelManager(jupyter.url, 'wrong').start_kernel()
