# Written by tools/help.py from the comments of the parameters. Do not edit.

texts: dict[str, dict[str, str]] = {'conkernelclient.cells.aside': {'Aside.eval': 'Parameters:\n    expr: A Python expression\n    timeout: Seconds that it may take\nReturns: Its value',
                                 'Aside.run': "Parameters:\n    code: Code in the kernel's language\n    timeout: Seconds that it may take\n    **kwargs: As for `kc.run`",
                                 'HasAside.variables': 'Parameters:\n'
                                                       '    limit: At most so many, the last ones\n'
                                                       '    patience: Seconds for all previews; a quarter of it for one\n'
                                                       '    timeout: Seconds to wait for the answer\n'
                                                       'Returns: A list of `Variable`',
                                 '_Answers.completions': 'Parameters:\n'
                                                         '    code: The code in which to complete\n'
                                                         '    pos: Where, in characters; the end by default\n'
                                                         '    timeout: Seconds to wait for the answer\n'
                                                         "Returns: In the kernel's order",
                                 '_Answers.doc': 'Parameters:\n'
                                                 '    code: The code with the name to look up\n'
                                                 '    pos: Where in it, in characters; the end by default\n'
                                                 '    detail: 1: with the source\n'
                                                 '    timeout: Seconds to wait for the answer\n'
                                                 'Returns: Plain text; empty where nothing was found',
                                 '_Opening.__init__': 'Parameters:\n    kc: The client\n    place: Where its lasting subshell is',
                                 '_Requesting.request': 'Parameters:\n'
                                                        "    msg_type: The protocol's name, such as `inspect_request`\n"
                                                        "    content: The message's content\n"
                                                        '    timeout: Seconds to wait for the reply\n'
                                                        'Returns: The content of the reply'},
 'conkernelclient.cells.comm': {'Comm.close': 'Parameters:\n    data: JSON, for the other side',
                                'HasComms.on_comm': 'Parameters:\n'
                                                    '    target: As in `comm_open`\n'
                                                    '    handler: Called with the comm and the message that opened it; may be async\n'
                                                    'Returns: Removes the handler',
                                'HasComms.open_comm': 'Parameters:\n'
                                                      '    target: The name that the kernel has registered\n'
                                                      '    data: JSON\n'
                                                      '    buffers: Binary data: bytes, or views of them; large ones are not copied\n'
                                                      "    metadata: The message's metadata\n"
                                                      '    subshell_id: The subshell that handles it; `sh.open_comm` is the way to name one\n'
                                                      '    timeout: Seconds; `None`: as long as it takes',
                                '_Finding.adopt': 'Parameters:\n    comm_id: As in the messages\n    target: What it was opened for',
                                '_Finding.find': 'Parameters:\n    comm_id: Also one that the last message has closed',
                                '_Handling.on': 'Parameters:\n'
                                                '    target: As in `comm_open`\n'
                                                '    handler: Called with the comm and the message that opened it; may be async\n'
                                                'Returns: Removes the handler',
                                '_OpensComms.open': 'Parameters:\n'
                                                    '    target: The name that the kernel has registered\n'
                                                    '    data: JSON\n'
                                                    '    buffers: Binary data\n'
                                                    "    metadata: The message's metadata\n"
                                                    '    subshell_id: The subshell that handles it; `None`: the main shell\n'
                                                    '    timeout: Seconds; `None`: as long as it takes',
                                '_Outboxes.__init__': 'Parameters:\n    connection: To the kernel',
                                '_Outboxes.outbox': 'Parameters:\n    subshell_id: `None`: the main shell',
                                '_Reading.__init__': 'Parameters:\n'
                                                     '    id: As in the messages\n'
                                                     '    target: What it was opened for\n'
                                                     '    ours: Was it opened by this client?\n'
                                                     '    generation: The kernel process it belongs to\n'
                                                     '    subshell_id: Where its messages are sent to; `None`: the main shell',
                                '_Receiving.receive': 'Parameters:\n    timeout: Seconds; `None`: as long as it takes',
                                '_Sending.__init__': 'Parameters:\n'
                                                     '    comms: Of the client\n'
                                                     '    target: What it is opened for\n'
                                                     '    id: As in the messages; a new one by default\n'
                                                     '    **kwargs: `ours`, `subshell_id`',
                                '_Sending.send': "Parameters:\n    data: JSON\n    buffers: Binary data: bytes, or views of them; large ones are not copied\n    metadata: The message's metadata",
                                '_Table.__init__': 'Parameters:\n    connection: To the kernel'},
 'conkernelclient.cells.debug': {'HasDebugger.debug': 'Parameters:\n    take_over: End the session of another client?\nReturns: An async context manager',
                                 'Stopped.go': 'Parameters:\n    timeout: Seconds that the cell may run until its next stop, or its end',
                                 'Stopped.next': 'Parameters:\n    timeout: As for `go`',
                                 'Stopped.out': 'Parameters:\n    timeout: As for `go`',
                                 'Stopped.step': 'Parameters:\n    timeout: As for `go`',
                                 '_Asking.__init__': 'Parameters:\n    kc: The client',
                                 '_Asking.request': 'Parameters:\n'
                                                    '    command: Of the Debug Adapter Protocol, such as `threads`\n'
                                                    '    timeout: Seconds to wait for the response; `None`: as long as it takes\n'
                                                    '    **arguments: Of the command\n'
                                                    'Returns: The body of the response',
                                 '_Beginning.run': 'Parameters:\n'
                                                   '    code: The cell; exactly the code that was given to `breakpoints`\n'
                                                   '    timeout: Seconds that it may take\n'
                                                   '    count_stops: Does the time at breakpoints count too?\n'
                                                   '    **kwargs: As for `kc.run`',
                                 '_Breaking.breakpoints': 'Parameters:\n'
                                                          '    code: A cell, exactly as it will be run; or the path of a file\n'
                                                          '    at: Lines, from 1; or lines with a condition each, or `None`\n'
                                                          'Returns: As the debugger has set them',
                                 '_Entering.__init__': 'Parameters:\n    kc: The client\n    take_over: End the session of another client?',
                                 '_Healing.cell_over': 'Parameters:\n    run: It has ended',
                                 '_Hearing.hear': 'Parameters:\n    msg: Of iopub',
                                 '_Looking.eval': "Parameters:\n    expr: In the kernel's language; a statement too\n    frame: Its place in `frames`",
                                 '_Looking.fields': 'Parameters:\n    value: Of `locals`, `eval`, or `fields`\nReturns: By name, or by place',
                                 '_Looking.locals': 'Parameters:\n    frame: Its place in `frames`\nReturns: By name',
                                 '_Place.__init__': 'Parameters:\n    debugger: That the cell runs under\n    run: The cell\n    body: Of the event `stopped`\n    frames: The innermost first',
                                 '_Running.resume': 'Parameters:\n'
                                                    '    command: `continue`, `next`, `stepIn` or `stepOut`\n'
                                                    '    stop: Where the cell has stopped\n'
                                                    '    timeout: Seconds that it may run until its next stop',
                                 '_Telling.on_event': 'Parameters:\n    f: Called with each event: a dict with `event` and `body`; its exceptions are logged\nReturns: Removes it'},
 'conkernelclient.cells.jobs': {'JobEvent.to_dict': 'Returns: Plain data that `json.dumps` takes',
                                '_AJob.shown_code': 'Parameters:\n    limit: Characters',
                                '_EndedJob.settled': 'Parameters:\n    timeout: Seconds; `None`: as long as it takes\nReturns: Whether it has ended',
                                '_ReadJob.for_llm': 'Parameters:\n    **options: As for `Result.for_llm`',
                                '_WatchedJob.follow': 'Parameters:\n'
                                                      '    after: The number of the last event that is known\n'
                                                      'Returns: `async for event in …`; it ends with the run, and raises nothing that the run raises',
                                '_WatchedJob.record': 'Parameters:\n    events: Changes, in order\n    found: Gives the run that has these outputs',
                                '_WatchedJob.since': 'Parameters:\n'
                                                     '    cursor: What the last call returned; `None`: from the beginning\n'
                                                     'Returns: The text, and the next cursor: numbers, which JSON can hold'},
 'conkernelclient.cells.llm': {'LLMContent.anthropic': "Parameters:\n    tool_use_id: Of the model's call; None: only the content blocks",
                               'LLMContent.openai': "Parameters:\n    call_id: Of the model's call; None: only the content",
                               '_Parts.__init__': "Parameters:\n    parts: In the order of the outputs; `type` is 'text', 'image' or 'file'\n    is_error: Did the cell fail?"},
 'conkernelclient.cells.outputs': {'ExecutionError.for_llm': 'Parameters:\n    **options: As for `Result.for_llm`',
                                   'Result.from_messages': 'Parameters:\n'
                                                           '    msg_id: Of the request\n'
                                                           '    reply: The reply, if it came\n'
                                                           '    iopub: Messages from iopub, in their order\n'
                                                           '    complete: Whether nothing is missing\n'
                                                           '    displays: Shared by the requests of a client',
                                   '_Bundles.representation': "Parameters:\n    mime: Such as 'text/html'\nReturns: A text, base64 or JSON, as the kernel sent it; None where nothing has it",
                                   '_Collector.add': 'Parameters:\n    msg: A message from iopub, or the reply\nReturns: The changes of the outputs, in order; often none',
                                   '_ForModels.for_llm': 'Parameters:\n'
                                                         '    limit: Characters of text, notes and names included\n'
                                                         '    max_images: Pictures and other binary parts; of more, those in the middle are only named\n'
                                                         '    max_image_bytes: Of one picture; a larger one is shrunk (by Pillow), or only named\n'
                                                         "    traceback: 'short': library frames without code, repeated frames counted\n"
                                                         '    spill: Where to keep what is cut or only named: a folder, or a function of a name and the data\n'
                                                         "    ending: What ended it, where the kernel's messages do not say it: the last line\n"
                                                         '    is_error: Is it a failure? None: the status says',
                                   '_Received.__init__': 'Parameters:\n    msg_id: Of the request\n    displays: Shared by the requests of a client',
                                   '_Stored.to_cell': 'Parameters:\n    code: The code of the cell\nReturns: A code cell of nbformat 4.5, with a new id',
                                   'parse_literal': 'Parameters:\n    data: A mimebundle, a `user_expressions` reply, or the text of a literal'},
 'conkernelclient.cells.record': {'Records.record': 'Parameters:\n    path: Where to save\n    autosave: Save after each cell?\nReturns: May be used in a `with` block, which then saves at its end',
                                  'Records.replay': 'Parameters:\n'
                                                    '    nb: A notebook, or a path of one\n'
                                                    '    until: The last cell to run: its id, or its place among the cells; `None`: all\n'
                                                    '    **kwargs: As for `run`: `timeout`, `on_output`, `stdin`, …\n'
                                                    'Returns: Of the cells that ran',
                                  '_Cells.__init__': 'Parameters:\n    runs: Of the client\n    spec: `kernelspec` of the notebook\n    path: Where to save\n    autosave: Save after each cell?',
                                  '_Made.notebook': 'Returns: An `nbformat.NotebookNode`, of nbformat 4.5, with copies of all outputs',
                                  '_Writes.save': 'Parameters:\n    path: Where to; by default, the path of the recording\nReturns: Where it is'},
 'conkernelclient.cells.run': {'ControlsKernel.restart': 'Parameters:\n'
                                                         '    now: Kill it, without time to clean up? Default: if it is busy\n'
                                                         '    timeout: Seconds until the new kernel must be ready\n'
                                                         '    if_dead: Do nothing to a living kernel? For a caller that comes late after a death',
                               'ControlsKernel.supports': 'Parameters:\n    feature: As in `supported_features` of `kernel_info_reply`: `kernel subshells`, `debugger`\nReturns: Whether it does',
                               'RunsCells.run': 'Parameters:\n'
                                                "    code: Code in the kernel's language\n"
                                                '    timeout: Seconds that it may take, from when the kernel begins it\n'
                                                '    queue_timeout: Seconds in which the kernel must begin it\n'
                                                '    check: Raise `ExecutionError` if the cell raises?\n'
                                                '    stdin: Answers, or a function of the prompt, sync or async\n'
                                                '    on_output: Called with each `Event` of its outputs; sync or async\n'
                                                '    silent: Run it without outputs, history and counting?\n'
                                                "    store_history: Store it in the kernel's history?\n"
                                                '    user_expressions: Names, and the expressions to evaluate for them after the code\n'
                                                "    metadata: The message's metadata\n"
                                                '    buffers: Binary data that goes with the message: bytes, or views of them\n'
                                                '    display: Show its outputs live, in this notebook cell or terminal?\n'
                                                '    on_comm: Called with each comm message that answers it; sync or async\n'
                                                '    tools: Functions of this program that the cell may await, by name\n'
                                                '    subshell_id: The subshell to run in; `kc.subshell()` is the way to have one\n'
                                                'Returns: `await` it for the `Result`; `async for` gives its outputs live',
                               '_Arguments.__init__': 'Parameters:\n'
                                                      '    shell: Where it runs\n'
                                                      '    content: Of the execute request\n'
                                                      '    metadata: Of the execute request\n'
                                                      '    timeout: Seconds that the kernel may take\n'
                                                      '    check: Raise what the cell raises?\n'
                                                      '    stdin: Gives the answer to a prompt; may be async\n'
                                                      '    on_output: Called with each `Event`; may be async\n'
                                                      '    buffers: Binary data that goes with the message\n'
                                                      '    on_comm: Called with each comm message that answers it; may be async\n'
                                                      '    tools: Functions of this program that the cell may await, by name',
                               '_Cancellable.cancel': 'Parameters:\n    msg: For the `CancelledError`\nReturns: Whether there was anything to cancel',
                               '_EndingEarly.end_early': 'Parameters:\n    verdict: What the caller gets',
                               '_Finished.finish': 'Parameters:\n    error: Why there is no result',
                               '_Interruptible.interrupt': 'Parameters:\n    force: If the kernel ignores it inside an awaited coroutine, raise an exception there?\nReturns: Whether it was running',
                               '_LeftAlone.reader_left': 'Parameters:\n    mail: Of a reader that was dropped\n    owns: Was it the first one?',
                               '_Queueing.cancel_all': 'Returns: Gives the outcome of each: a result, or the exception',
                               '_Watched.wait_until': 'Parameters:\n'
                                                      '    ready: Looked at after each change of the run\n'
                                                      '    timeout: Seconds; `None`: as long as it takes\n'
                                                      'Returns: Whether `ready()` is true'},
 'conkernelclient.cells.subshell': {'HasSubshells.map': 'Parameters:\n'
                                                        '    codes: Cells; or with `items` a template such as `"f({})"`, or a function that gives the code for an item\n'
                                                        '    items: What the cells are about\n'
                                                        '    concurrency: How many at a time: so many subshells. 1: on the main shell\n'
                                                        '    progress: Show a progress bar, where a person may watch?\n'
                                                        '    return_exceptions: Return exceptions in place of results, and run the other cells?\n'
                                                        '    **kwargs: As for `run`; a function for `on_output` may also take `cell`, the place of its cell\n'
                                                        'Returns: Results (and exceptions), in the order of the cells',
                                    'OpensSubshells.subshell': 'Returns: An async context manager',
                                    'Subshell.call': 'Parameters:\n    **kwargs: As for `kc.call`',
                                    'Subshell.eval': 'Parameters:\n    **kwargs: As for `kc.eval`',
                                    'Subshell.push': 'Parameters:\n    **values: Names, and the values to give them',
                                    '_AboutCode.complete': 'Parameters:\n    **kwargs: As for `kc.complete`',
                                    '_AboutCode.inspect': 'Parameters:\n    **kwargs: As for `kc.inspect`',
                                    '_Belongs.__init__': 'Parameters:\n    kc: Its client',
                                    '_Executing.execute': 'Parameters:\n    **kwargs: As for `kc.execute`',
                                    '_Executing.open_comm': 'Parameters:\n'
                                                            '    target: The name that the kernel has registered\n'
                                                            '    data: JSON\n'
                                                            '    buffers: Binary data\n'
                                                            '    **kwargs: As for `kc.open_comm`',
                                    '_Executing.request': 'Parameters:\n'
                                                          "    msg_type: The protocol's name, such as `inspect_request`\n"
                                                          "    content: The message's content\n"
                                                          '    **kwargs: As for `kc.request`\n'
                                                          'Returns: `await` it for the reply',
                                    '_Executing.run': 'Parameters:\n    **kwargs: As for `kc.run`'},
 'conkernelclient.cells.values': {'MovesValues.call': 'Parameters:\n'
                                                      '    name: Of a function in the kernel: `f`, or `module.f`, which is imported where needed\n'
                                                      '    *args: For the function\n'
                                                      '    **kwargs: For the function\n'
                                                      'Returns: What it returns; a coroutine is awaited',
                                  'MovesValues.call_all': 'Parameters:\n'
                                                          '    name: Of a function in the kernel\n'
                                                          '    args: For the function\n'
                                                          '    kwargs: For the function\n'
                                                          '    **options: As for `run`\n'
                                                          'Returns: What it returns',
                                  '_Variables.eval': 'Parameters:\n    expr: A Python expression\n    timeout: Seconds that it may take\n    **kwargs: As for `run`\nReturns: Its value',
                                  '_Variables.push': 'Parameters:\n    **values: Names, and the values to give them',
                                  '_Variables.push_all': 'Parameters:\n    values: By name\n    **kwargs: As for `run`'},
 'conkernelclient.cells.widgets': {'_Changing.renew': 'Parameters:\n    state: All of it',
                                   '_Entering.capture': 'Parameters:\n    msg: An iopub message\nReturns: Did it take the message?',
                                   '_Entering.enter': 'Parameters:\n    comm: Of the widget\n    state: At the beginning',
                                   '_Following.__init__': 'Parameters:\n    runs: Of the client',
                                   '_Holding.hold': 'Parameters:\n    displays: Of the kernel\n    limit: Characters to keep',
                                   '_Loading.load': 'Parameters:\n    timeout: Seconds; `None`: as long as it takes\nReturns: How many were new',
                                   '_Model.__init__': 'Parameters:\n    comm: It was opened with the state\n    models: Those of the same kernel, for its children\n    state: At the beginning',
                                   '_Setting.push': 'Parameters:\n    values: Attributes by name\n    on_passed: Called when the kernel has got to it',
                                   '_Setting.send': "Parameters:\n    content: JSON: `{'event': 'click'}` is the click on a button\n    buffers: Binary data",
                                   '_Setting.set': 'Parameters:\n    **values: Attributes by name; binary values may be anywhere in them',
                                   '_Stored.state': 'Returns: JSON; empty where there are no widgets'},
 'conkernelclient.core': {'ConKernelManager.start_again': 'Returns: Is it being started again?',
                          'OneRestart.restart_over': 'Returns: Was there one, and has it succeeded?',
                          '_AboutCode.complete': 'Parameters:\n'
                                                 '    code: The code in which to complete\n'
                                                 '    cursor_pos: Where, in characters; the end by default\n'
                                                 '    reply: Return an awaitable of the reply, instead of the id?\n'
                                                 '    timeout: Seconds to wait for the reply\n'
                                                 '    subshell_id: The subshell to ask (JEP 91)\n'
                                                 "Returns: The message's id, or with `reply` an awaitable of the reply",
                          '_AboutCode.inspect': 'Parameters:\n'
                                                '    code: The code with the name to look up\n'
                                                '    cursor_pos: Where in it, in characters; the end by default\n'
                                                '    detail_level: 0 or 1 (with source)\n'
                                                '    reply: Return an awaitable of the reply, instead of the id?\n'
                                                '    timeout: Seconds to wait for the reply\n'
                                                '    subshell_id: The subshell to ask (JEP 91)\n'
                                                "Returns: The message's id, or with `reply` an awaitable of the reply",
                          '_AboutInput.history': 'Parameters:\n'
                                                 '    raw: The input as typed (rather than transformed)?\n'
                                                 '    output: The outputs too?\n'
                                                 '    hist_access_type: `range`, `tail` or `search`\n'
                                                 '    reply: Return an awaitable of the reply, instead of the id?\n'
                                                 '    timeout: Seconds to wait for the reply\n'
                                                 '    **kwargs: `session`, `start`, `stop`; `n`; `pattern`: as the spec has them\n'
                                                 "Returns: The message's id, or with `reply` an awaitable of the reply",
                          '_AboutInput.is_complete': 'Parameters:\n'
                                                     '    code: What was typed so far\n'
                                                     '    reply: Return an awaitable of the reply, instead of the id?\n'
                                                     '    timeout: Seconds to wait for the reply\n'
                                                     "Returns: The message's id, or with `reply` an awaitable of the reply",
                          '_AboutKernel.comm_info': 'Parameters:\n'
                                                    '    target_name: Only comms of this target\n'
                                                    '    reply: Return an awaitable of the reply, instead of the id?\n'
                                                    '    timeout: Seconds to wait for the reply\n'
                                                    "Returns: The message's id, or with `reply` an awaitable of the reply",
                          '_AboutKernel.kernel_info': 'Parameters:\n'
                                                      '    reply: Return an awaitable of the reply, instead of the id?\n'
                                                      '    timeout: Seconds to wait for the reply\n'
                                                      '    channel: `control` is answered even while a cell runs\n'
                                                      "Returns: The message's id, or with `reply` an awaitable of the reply",
                          '_AboutKernel.shutdown': 'Parameters:\n'
                                                   '    restart: Is it to be restarted afterwards?\n'
                                                   '    reply: Return an awaitable of the reply, instead of the id?\n'
                                                   '    timeout: Seconds to wait for the reply\n'
                                                   "Returns: The message's id, or with `reply` an awaitable of the reply",
                          '_Answering.input': 'Parameters:\n    string: The answer\n    parent: The `input_request` that it answers; by default, that of the hook that calls this',
                          '_Executing.execute': 'Parameters:\n'
                                                "    code: Code in the kernel's language\n"
                                                '    silent: Run it without outputs, history and counting?\n'
                                                "    store_history: Store it in the kernel's history?\n"
                                                '    user_expressions: Names, and the expressions to evaluate for them after the code\n'
                                                "    allow_stdin: May it ask for input? Default: the client's `allow_stdin`\n"
                                                '    stop_on_error: Does an error abort the execute requests that wait behind it?\n'
                                                '    reply: Return an awaitable of the reply, instead of the id?\n'
                                                '    timeout: Seconds to wait for the reply\n'
                                                "    msg_id: The message's id; a new one by default\n"
                                                "    metadata: The message's metadata\n"
                                                '    subshell_id: The subshell to run in (JEP 91)\n'
                                                '    buffers: Binary buffers\n'
                                                "Returns: The message's id, or with `reply` an awaitable of the reply",
                          '_Interactive.execute_interactive': 'Parameters:\n'
                                                              "    code: Code in the kernel's language\n"
                                                              '    silent: Run it without outputs, history and counting?\n'
                                                              "    store_history: Store it in the kernel's history?\n"
                                                              '    user_expressions: Names, and the expressions to evaluate for them after the code\n'
                                                              "    allow_stdin: May it ask for input? Default: the client's `allow_stdin`\n"
                                                              '    stop_on_error: Does an error abort the execute requests that wait behind it?\n'
                                                              '    timeout: Seconds for all of it\n'
                                                              '    output_hook: Called with each iopub message; default: print it\n'
                                                              '    stdin_hook: Called with each `input_request`; default: ask the terminal\n'
                                                              'Returns: The reply',
                          '_Joined.__init__': 'Parameters:\n    **kwargs: As for `AsyncKernelClient`, and the settings',
                          '_Launching.__init__': 'Parameters:\n'
                                                 '    *args: As for `AsyncKernelManager`\n'
                                                 '    kernel_spec: What to launch, instead of an installed kernel\n'
                                                 '    **kwargs: As for `AsyncKernelManager`: `kernel_name`, `session`, `transport_encryption`, …',
                          '_Opening.start_channels': 'Parameters:\n'
                                                     '    shell: Requests and their replies\n'
                                                     '    iopub: Outputs\n'
                                                     "    stdin: The kernel's questions\n"
                                                     '    hb: The heartbeat\n'
                                                     '    control: Requests that overtake\n'
                                                     'Returns: `await` it for the client, ready',
                          '_Outputs.get_pubs': 'Parameters:\n'
                                               '    msg_id: Only those of this request; by default, all that no request has claimed\n'
                                               '    timeout: Seconds to wait for requests in flight to become idle\n'
                                               'Returns: iopub messages, in order',
                          '_Ready.wait_for_ready': 'Parameters:\n    timeout: Seconds; `None`: as long as it takes',
                          '_Requesting.request': 'Parameters:\n'
                                                 "    msg_type: The protocol's name, such as `inspect_request`\n"
                                                 "    content: The message's content\n"
                                                 '    channel: `shell` or `control`\n'
                                                 '    timeout: Seconds until it fails with `ReplyTimeout`; `None`: never\n'
                                                 "    metadata: The message's metadata\n"
                                                 '    subshell_id: The subshell it is for (JEP 91)\n'
                                                 '    buffers: Binary buffers\n'
                                                 '    msg_id: Its id; a new one by default\n'
                                                 '    iopub: Keep its iopub messages in the request? If not, they are for `get_iopub_msg`\n'
                                                 '    on_iopub: Called with each of its iopub messages; may be async\n'
                                                 '    on_stdin: Called when it asks for input; may be async\n'
                                                 'Returns: `await` it for the reply, `await req.wait()` for the end of its outputs',
                          '_Shown.on_message': 'Parameters:\n'
                                               '    f: Called with each message, before its request gets it; its exceptions are logged\n'
                                               '    channel: `shell`, `iopub`, `stdin` or `control`; `None`: all\n'
                                               'Returns: Removes `f`',
                          '_Sockets.address': 'Parameters:\n    channel: `shell`, `iopub`, `stdin`, `control` or `hb`\nReturns: Such as `tcp://127.0.0.1:50001`',
                          '_Status.on_status': 'Parameters:\n    callback: Called with the new status, in the event loop\nReturns: Removes `callback`',
                          '_Status.wait_for_status': 'Parameters:\n    *statuses: Any of these will do\n    timeout: Seconds; `None`: as long as it takes\nReturns: The one that came',
                          '_WithClients.__init__': 'Parameters:\n'
                                                   '    *args: As for `AsyncKernelManager`\n'
                                                   '    kernel_spec: What to launch, instead of an installed kernel\n'
                                                   '    **kwargs: As for `AsyncKernelManager`: `kernel_name`, `session`, `transport_encryption`, …',
                          'run_kernel': 'Parameters:\n'
                                        '    kernel_name: An installed kernel\n'
                                        '    kernel_spec: What to launch instead\n'
                                        '    startup_timeout: Seconds until it must be ready\n'
                                        '    manager_class: Manages it\n'
                                        '    **kwargs: For `start_kernel`: `cwd`, `env`, `extra_arguments`, …\n'
                                        'Returns: Gives the manager and a ready client'},
 'conkernelclient.engine.errors': {'ConKernelError.for_llm': 'Parameters:\n    **options: As for `Result.for_llm`\nReturns: It is an error',
                                   'DeadKernelError.__init__': 'Parameters:\n'
                                                               '    message: What happened, and what to do\n'
                                                               '    exit_code: Of its process, where that is known; negative: the signal that ended it',
                                   'ServerError.__init__': 'Parameters:\n'
                                                           '    message: What happened, and what to do\n'
                                                           '    code: The HTTP status; `None`: the server did not answer\n'
                                                           '    final: Would the same happen at another try?',
                                   'TooManyOpenFiles.__init__': 'Parameters:\n    message: What is used up, and what to do',
                                   'UnknownKernel.__init__': 'Parameters:\n    name: The name that was asked for\n    known: The names of the installed kernels'},
 'conkernelclient.engine.request': {'_Made.__init__': 'Parameters:\n'
                                                      '    msg: As `Session.msg` builds it\n'
                                                      '    channel: `shell` or `control`\n'
                                                      "    loop: The client's event loop\n"
                                                      '    generation: The kernel process it is meant for\n'
                                                      '    claims_reply: Is the reply for this request (else for the mailbox)?\n'
                                                      '    claims_iopub: Are its iopub messages kept in `iopub` (else in the mailbox)?\n'
                                                      '    has_reply: Does the kernel answer such a message?\n'
                                                      '    on_iopub: Called with each of its iopub messages; may be async\n'
                                                      '    on_stdin: Called with its `input_request`s; may be async',
                                    '_Taking.take_print': 'Parameters:\n    text: If not, the message is needed',
                                    '_Waiting.wait': 'Returns: To be awaited; gives the request'},
 'conkernelclient.kernel': {'open_kernel': 'Parameters:\n'
                                           '    name: An installed kernel\n'
                                           '    kernel_spec: What to launch instead\n'
                                           '    preload: Modules: fork it from a process that has imported them (Linux); `()` for none\n'
                                           '    connection_file: Join a running kernel instead: a path, or `latest`. It is never shut down\n'
                                           '    url: Start it behind this Jupyter server\n'
                                           '    token: For the server; or a function that returns it, sync or async\n'
                                           '    kernel_id: Join this kernel of the server. It is never shut down\n'
                                           '    pool: Take one of this pool, and give it back at the end; `Pool` without asyncio\n'
                                           "    cwd: The kernel's working directory; behind a server, relative to the server's root\n"
                                           '    env: Environment variables for it, besides ours; of servers, only gateways take them\n'
                                           '    startup_timeout: Seconds until it must be ready\n'
                                           '    restart_on_death: Start it again when it has died? Its variables are gone\n'
                                           '    manager_class: Makes its manager\n'
                                           '    **options: Of `start_kernel`: `extra_arguments`, …; with `url` also `headers`, `ssl_options`; with `pool` `timeout`\n'
                                           'Returns: `async with`, `await`, `with` or `.start()` opens it'},
 'conkernelclient.kernels.fork': {'fork_spec': 'Parameters:\n'
                                               '    preload: Modules to import before the fork, so that every kernel has them\n'
                                               '    kernel_name: An installed kernel\n'
                                               '    variables: Environment variables that these modules read at their import; `*`: any text\n'
                                               '    linger: Seconds without a kernel after which the template ends\n'
                                               '    env: More environment variables for the kernels\n'
                                               'Returns: For `run_kernel(kernel_spec=…)` or `ConKernelManager(kernel_spec=…)`'},
 'conkernelclient.kernels.notebooks': {'NotebookError.__init__': 'Parameters:\n    runs: How each one went',
                                       'run_notebooks': 'Parameters:\n'
                                                        '    notebooks: Paths or notebooks, or one\n'
                                                        '    pool: Gives all kernels, whatever a notebook names; by default, one is made\n'
                                                        '    concurrency: Notebooks at a time\n'
                                                        '    timeout: Seconds for each cell\n'
                                                        '    parameters: For all notebooks, or a list with those of each\n'
                                                        '    output: Folder to save them in, or a function from the name to a path; `None`: they are not saved\n'
                                                        '    on_error: `stop`: begin no other notebook, and raise at the end; `go on`: run all\n'
                                                        '    progress: Show a progress bar, where a person may watch?\n'
                                                        '    kernel_name: For all, in place of the one that each names\n'
                                                        '    preload: Modules that the kernels have imported already\n'
                                                        "    **options: For nbclient's `NotebookClient`: `allow_errors`, `record_timing`, …\n"
                                                        'Returns: In the order of `notebooks`'},
 'conkernelclient.kernels.pool': {'KernelPool.filled': 'Parameters:\n    timeout: Seconds; `None`: as long as it takes',
                                  '_Closing.close': "Parameters:\n    grace: Seconds that lent kernels have; by default the pool's",
                                  '_Lending.kernel': 'Parameters:\n'
                                                     '    timeout: Seconds to wait for a kernel; `None`: as long as it takes\n'
                                                     "    **start_kernel: Other than the pool's: `cwd`, `env`, …; such a kernel is started now",
                                  '_Lending.take': 'Parameters:\n'
                                                   '    timeout: Seconds to wait for a kernel; `None`: as long as it takes\n'
                                                   "    **start_kernel: Other than the pool's: `cwd`, `env`, …; such a kernel is started now\n"
                                                   'Returns: `await kc.close()` gives it back',
                                  '_Mapping.map': 'Parameters:\n'
                                                  '    codes: Cells; with `max_uses=1` each runs in a fresh kernel\n'
                                                  '    timeout: Seconds that each may run\n'
                                                  '    progress: Show a progress bar, where a person may watch?\n'
                                                  '    **kwargs: As for `kc.run`\n'
                                                  'Returns: In the order of `codes`',
                                  '_Settings.__init__': 'Parameters:\n'
                                                        '    size: Kernels at most\n'
                                                        '    spare: Kernels to keep ready\n'
                                                        '    preload: Modules that each kernel has imported\n'
                                                        '    setup: Code to run in each kernel before its first use\n'
                                                        '    max_uses: Uses of a kernel before it is ended; 1: always a fresh one\n'
                                                        '    idle_timeout: Seconds without use after which the ready kernels end\n'
                                                        '    max_memory: Of all kernels: above it none is started or handed out. Such as `8 GB`\n'
                                                        '    kernel_memory: Of one kernel: more is a `MemoryError` in its cell\n'
                                                        '    kernel_name: An installed kernel\n'
                                                        '    kernel_spec: What to launch instead\n'
                                                        '    fork: Fork kernels from a template, where that is possible?\n'
                                                        '    startup_timeout: Seconds until a kernel must be ready\n'
                                                        '    grace: Seconds that lent kernels have when the pool is closed\n'
                                                        '    manager_class: Manages each kernel\n'
                                                        '    url: Run them behind this Jupyter server; default, where there is a `token`: `JUPYTER_GATEWAY_URL`\n'
                                                        '    token: For the server, or a function that returns it, sync or async\n'
                                                        '    headers: More headers for each request to the server\n'
                                                        '    ssl_options: For `https`\n'
                                                        "    connect: Opens WebSockets; by default tornado's client\n"
                                                        '    **start_kernel: For `start_kernel`: `cwd`, `env`, `extra_arguments`, …',
                                  '_Settings.check_options': 'Parameters:\n    start_kernel: Options of `start_kernel`'},
 'conkernelclient.kernels.server': {'ServerKernelManager.restart_kernel': 'Parameters:\n'
                                                                          '    now: Not used: the server decides\n'
                                                                          '    newports: Not used\n'
                                                                          '    timeout: Seconds for the server\n'
                                                                          '    **kwargs: Not used',
                                    '_OnServer.__init__': 'Parameters:\n'
                                                          '    url: Base address of the server, with path; default: `JUPYTER_GATEWAY_URL`\n'
                                                          '    token: Or a function that returns it, sync or async; default: `JUPYTER_GATEWAY_AUTH_TOKEN`\n'
                                                          "    kernel_name: One of the server's kernels\n"
                                                          '    headers: More headers for each request\n'
                                                          "    ssl_options: For `https`; by default, the system's certificates\n"
                                                          '    connect: Opens WebSockets; replace it for proxies\n'
                                                          '    **kwargs: As for `AsyncKernelManager`',
                                    '_Starting.start_kernel': 'Parameters:\n'
                                                              '    kernel_id: Attach to this one, instead of starting one\n'
                                                              "    path: Folder to start in, below the server's root\n"
                                                              '    cwd: The same, if it is relative; a folder on this machine means nothing there\n'
                                                              '    env: Environment variables; gateways take those that they allow, and `KERNEL_…`\n'
                                                              '    timeout: Seconds for the server to start it\n'
                                                              '    **kwargs: Not used (for callers of `AsyncKernelManager.start_kernel`)',
                                    'list_kernels': 'Parameters:\n'
                                                    '    url: Of the server; default: `JUPYTER_GATEWAY_URL`\n'
                                                    '    token: Or a function that returns it, sync or async; default: `JUPYTER_GATEWAY_AUTH_TOKEN`\n'
                                                    '    headers: More headers\n'
                                                    '    ssl_options: For `https`\n'
                                                    'Returns: One for each kernel',
                                    'list_kernelspecs': 'Parameters:\n'
                                                        '    url: Of the server; default: `JUPYTER_GATEWAY_URL`\n'
                                                        '    token: Or a function that returns it, sync or async; default: `JUPYTER_GATEWAY_AUTH_TOKEN`\n'
                                                        '    headers: More headers\n'
                                                        '    ssl_options: For `https`\n'
                                                        'Returns: By name',
                                    'open_server_kernel': 'Parameters:\n'
                                                          '    url: Of the server; default: `JUPYTER_GATEWAY_URL`\n'
                                                          '    token: Or a function that returns it, sync or async; default: `JUPYTER_GATEWAY_AUTH_TOKEN`\n'
                                                          '    name: Start one of this name\n'
                                                          '    kernel_id: Or attach to this one, and leave it running at the end\n'
                                                          '    startup_timeout: Seconds until it must be ready\n'
                                                          '    headers: More headers for each request\n'
                                                          '    ssl_options: For `https`\n'
                                                          '    connect: Opens WebSockets\n'
                                                          '    **kwargs: For `start_kernel`: `path`, `env`, `timeout`'},
 'conkernelclient.kernels.sync_pool': {'Pool.filled': 'Parameters:\n    timeout: Seconds; `None`: as long as it takes',
                                       'Pool.kernel': 'Parameters:\n'
                                                      '    timeout: Seconds to wait for a kernel; `None`: as long as it takes\n'
                                                      "    **start_kernel: Other than the pool's: `cwd`, `env`, …; such a kernel is started now\n"
                                                      'Returns: Its `close` and the end of its `with` block give it back',
                                       'Pool.map': 'Parameters:\n'
                                                   '    codes: Cells; with `max_uses=1` each runs in a fresh kernel\n'
                                                   '    timeout: Seconds that each may run\n'
                                                   '    progress: Show a progress bar, where a person may watch?\n'
                                                   '    **kwargs: As for `ConKernelClient.run`; hooks are called in the background loop\n'
                                                   'Returns: In the order of `codes`',
                                       '_Open.__init__': 'Parameters:\n'
                                                         '    size: Kernels at most\n'
                                                         '    spare: Kernels to keep ready\n'
                                                         '    **kwargs: As for `KernelPool`: `preload`, `setup`, `max_uses`, …',
                                       '_Open.close': "Parameters:\n    grace: Seconds that lent kernels have; by default the pool's"},
 'conkernelclient.models.tools': {'HasTools.expose': 'Parameters:\n'
                                                     '    *functions: Of this program, sync or async\n'
                                                     '    sync: Is the kernel to call them without `await`, one call at a time?\n'
                                                     '    **named: By another name',
                                  '_Defines.code': 'Parameters:\n    functions: By their names in the kernel\n    sync: Is the kernel to call them without `await`?\nReturns: Python code',
                                  '_Knows.__init__': 'Parameters:\n    runs: Of the client',
                                  'tool_schemas': 'Parameters:\n    *functions: With type hints, a docstring, and comments behind the parameters'},
 'conkernelclient.sync': {'Job.follow': 'Parameters:\n    after: The number of the last event that is known\nReturns: `for event in …`; it ends with the job, and raises nothing that the run raises',
                          'Job.in_thread': 'Parameters:\n    on_output: Called with each change of its outputs\n    *args: As for `attend`\n    **kwargs: As for `attend`',
                          'Kernel.map': 'Parameters:\n'
                                        '    codes: Cells; or with `items` a template such as `"f({})"`, or a function that gives the code for an item\n'
                                        '    items: Items for the template or the function\n'
                                        '    concurrency: How many at a time: so many subshells. 1: on the main shell\n'
                                        '    progress: Show a progress bar, where a person may watch?\n'
                                        '    **kwargs: As for `ConKernelClient.map`; hooks are called in the background loop\n'
                                        'Returns: Results, in the order of the cells',
                          'Kernel.subshell': 'Returns: A context manager',
                          'KernelSubshell.__init__': 'Parameters:\n    kernel: Whose',
                          '_Attended.attend': 'Parameters:\n'
                                              '    start: `run` of a client or a subshell\n'
                                              '    stdin: Answers to its prompts, or a plain function of the prompt\n'
                                              '    **kwargs: For `start`\n'
                                              'Returns: To be iterated: that answers the prompts',
                          '_Controlled.restart': 'Parameters:\n'
                                                 '    now: Kill it, without time to clean up? Default: if it is busy\n'
                                                 '    timeout: Seconds until the new kernel must be ready\n'
                                                 '    if_dead: Do nothing to a living kernel?',
                          '_Controlled.widget_state': 'Returns: JSON; empty where there are no widgets',
                          '_Crossing.in_loop': 'Parameters:\n    f: Called with the client (or subshell) in the background loop\nReturns: What it returns; an awaitable is awaited',
                          '_Ending.begin': 'Parameters:\n    start: `run` of a client or a subshell\n    **kwargs: For `start`',
                          '_Ending.wait': 'Parameters:\n    timeout: Seconds; `None`: as long as it takes\nReturns: Of the cell',
                          '_Exposing.expose': 'Parameters:\n'
                                              '    *functions: Of this program, sync or async; called in another thread, or in the background loop\n'
                                              '    sync: Is the kernel to call them without `await`, one call at a time?\n'
                                              '    **named: By another name',
                          '_Named.__init__': 'Parameters:\n    back: Whose loop it runs in\n    code: The cell',
                          '_Opened.__init__': 'Parameters:\n    open: An async function that gives a ready `ConKernelClient`: called in the background loop',
                          '_Read.for_llm': 'Parameters:\n    **options: As for `Result.for_llm`',
                          '_Read.since': 'Parameters:\n    cursor: What the last call returned; `None`: from the beginning\nReturns: The text, and the next cursor: numbers, which JSON can hold',
                          '_Read.submit': 'Parameters:\n    **kwargs: As for `begin`',
                          '_Recorded.record': 'Parameters:\n    path: Where to save\n    autosave: Save after each cell?\nReturns: May be used in a `with` block, which then saves at its end',
                          '_Recorded.replay': 'Parameters:\n'
                                              '    nb: A notebook, or a path of one\n'
                                              '    until: The last cell to run: its id, or its place among the cells; `None`: all\n'
                                              '    **kwargs: As for `ConKernelClient.run`; hooks are called in the background loop\n'
                                              'Returns: Of the cells that ran',
                          '_Running.run': 'Parameters:\n'
                                          "    code: Code in the kernel's language\n"
                                          '    timeout: Seconds that it may take, from when the kernel begins it\n'
                                          '    check: Raise `ExecutionError` if the cell raises?\n'
                                          '    stdin: Answers, or a plain function of the prompt\n'
                                          '    on_output: Called with each `Event` of its outputs\n'
                                          '    display: Show its outputs live, in this notebook cell or terminal?\n'
                                          '    **kwargs: As for `ConKernelClient.run`\n'
                                          'Returns: Of the cell',
                          '_Starting.attend': 'Parameters:\n'
                                              "    code: Code in the kernel's language\n"
                                              '    stdin: Answers, or a plain function of the prompt\n'
                                              '    **kwargs: As for `ConKernelClient.run`\n'
                                              'Returns: Its outputs, live; `.job` is the job',
                          '_Starting.start': 'Parameters:\n'
                                             "    code: Code in the kernel's language\n"
                                             '    timeout: Seconds that it may take, from when the kernel begins it\n'
                                             '    check: Raise `ExecutionError` if the cell raises?\n'
                                             '    stdin: Answers, or a plain function of the prompt\n'
                                             '    on_output: Called with each `Event` of its outputs\n'
                                             '    display: Show its outputs live, in this notebook cell or terminal?\n'
                                             '    **kwargs: As for `ConKernelClient.run`\n'
                                             'Returns: To wait for, to follow and to stop',
                          '_Stoppable.interrupt': 'Parameters:\n    force: If the kernel ignores it inside an awaited coroutine, raise an exception there?\nReturns: Whether it was running',
                          '_Stoppable.stop': 'Returns: Whether there was anything to stop',
                          '_Values.call': 'Parameters:\n'
                                          '    name: Of a function in the kernel: `f`, or `module.f`, which is imported where needed\n'
                                          '    *args: For the function\n'
                                          '    **kwargs: For the function\n'
                                          'Returns: What it returns; a coroutine is awaited in the kernel',
                          '_Values.complete': 'Parameters:\n'
                                              '    code: The code in which to complete\n'
                                              '    cursor_pos: Where, in characters; the end by default\n'
                                              '    timeout: Seconds to wait for the reply\n'
                                              'Returns: The `complete_reply`',
                          '_Values.eval': 'Parameters:\n    expr: A Python expression\n    timeout: Seconds that it may take\n    **kwargs: As for `run`\nReturns: Its value',
                          '_Values.inspect': 'Parameters:\n'
                                             '    code: The code with the name to look up\n'
                                             '    cursor_pos: Where in it, in characters; the end by default\n'
                                             '    detail_level: 0 or 1 (with source)\n'
                                             '    timeout: Seconds to wait for the reply\n'
                                             'Returns: The `inspect_reply`',
                          '_Values.push': 'Parameters:\n    **values: Names, and the values to give them',
                          '_Waiting.settled': 'Parameters:\n    timeout: Seconds; `None`: as long as it takes\nReturns: Whether it has ended'}}
