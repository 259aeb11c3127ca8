-- The server as Neovim's language client runs it: its configuration, its end, and questions to it.
local api = vim.api
local config = require('gemma.config')
local message = require('gemma.message')
local status = require('gemma.status')

local M = {}

local NAME = 'gemma'

-- A server that ran this long had nothing wrong with it from the start: its next end counts as the first.
local STEADY_MS = 60 * 1000
local SIGTERM = 15
-- The wait before the first new start; each further one waits twice as long.
local FIRST_WAIT_MS = 500

---@class gemma.client.Life
---@field failures integer how often in a row the server has ended by itself
---@field started integer when it last said hello
---@field stopping boolean whether it ends because we want it to
---@field buffers table<integer, true> where it was attached
---@field config? vim.lsp.ClientConfig how it was last started
---@field waiting { callback: fun(client: vim.lsp.Client), failed: fun(why: string) }[] for a server that is starting

---@type gemma.client.Life
local life = { failures = 0, started = 0, stopping = false, buffers = {}, waiting = {} }

---@type table<string|integer, fun(value: table)>
local listeners = {}

--- Calls back with what `$/progress` brings on a new token.
---@param listener fun(value: table)
---@return string token
function M.listen(listener)
  local token
  repeat
    token = ('gemma-%d'):format(math.random(2 ^ 31))
  until not listeners[token]
  listeners[token] = listener
  return token
end

---@param token string
function M.unlisten(token)
  listeners[token] = nil
end

---@type table<fun(), true>
local mourners = {}

--- Calls back when the server ends: Neovim never answers the questions that it still had.
---@param callback fun()
---@return fun() forget call it when the question was answered
function M.at_end(callback)
  mourners[callback] = true
  return function()
    mourners[callback] = nil
  end
end

---@return table
local function section()
  local settings = config.options.settings or {}
  -- An empty Lua table would be sent as an empty list.
  return { gemma = next(settings) and settings or vim.empty_dict() }
end

---@return table<string, function>
local function handlers()
  return {
    ['gemma/didChangeStatus'] = function(_, params)
      local had_model = status.current.state == 'ready' or status.current.state == 'working'
      status.set(params)
      if params.state == 'ready' then
        require('gemma.ghost').refresh()
        if not had_model then
          require('gemma.cursor').again()
        end
      end
    end,
    ['$/progress'] = function(err, params, context)
      local listener = listeners[params.token]
      if listener then
        listener(params.value)
        return
      end
      return vim.lsp.handlers['$/progress'](err, params, context)
    end,
  }
end

---@param client vim.lsp.Client
---@param bufnr integer
local function on_attach(client, bufnr)
  life.buffers[bufnr] = true
  if require('gemma').is_enabled() then
    require('gemma.ghost').attach(bufnr, client.id)
  end
end

---@param client vim.lsp.Client
local function on_init(client)
  life.started = vim.uv.now()
  life.stopping = false
  life.config = client.config
  require('gemma.cost').forget()
  require('gemma.ghost').watch(client)
  if status.current.state == 'stopped' then
    status.set({ state = 'loading', message = 'gemma-ls has started' })
  end
  local waiting = life.waiting
  life.waiting = {}
  for _, one in ipairs(waiting) do
    vim.schedule(function()
      one.callback(client)
    end)
  end
end

-- Starts the server again for the buffers that it had: they are sent to it as they are now.
local function again()
  if life.stopping or M.get() or not life.config then
    return
  end
  local fresh = vim.tbl_extend('force', life.config, { settings = section() })
  for bufnr in pairs(life.buffers) do
    if api.nvim_buf_is_loaded(bufnr) then
      vim.lsp.start(fresh, { bufnr = bufnr, reuse_client = fresh.reuse_client })
    end
  end
end

-- Nobody needs to wait for the server any more.
---@param why string
local function give_up(why)
  local waiting = life.waiting
  life.waiting = {}
  for _, one in ipairs(waiting) do
    one.failed(why)
  end
end

---@param code integer
---@param signal integer
local function on_exit(code, signal)
  local how = signal ~= 0 and ('was ended by signal %d'):format(signal) or ('ended with code %d'):format(code)
  give_up(('gemma-ls %s before it said hello; :Gemma log tells why.'):format(how))
  for _, bufnr in ipairs(require('gemma.ghost.own').buffers()) do
    require('gemma.ghost.own').detach(bufnr)
  end
  local open = mourners
  mourners = {}
  for callback in pairs(open) do
    callback()
  end
  -- It ends in peace only when it was told to, by us or by `vim.lsp.enable('gemma', false)`.
  local told_to = code == 0 and (signal == 0 or signal == SIGTERM)
  if life.stopping or told_to or vim.v.exiting ~= vim.NIL then
    status.set({ state = 'stopped', message = 'gemma-ls is not running' })
    return
  end
  life.failures = vim.uv.now() - life.started > STEADY_MS and 1 or life.failures + 1
  if life.failures > config.options.restarts then
    local text = ('gemma-ls %s, %d times in a row. See :Gemma log, then :Gemma restart.'):format(how, life.failures)
    status.set({ state = 'failed', message = text, error = text })
    message.error(text)
    return
  end
  local wait = FIRST_WAIT_MS * 2 ^ (life.failures - 1)
  local text = ('gemma-ls %s; it is started again in %.1f s. Your text is as it was.'):format(how, wait / 1000)
  status.set({ state = 'stopped', message = text })
  message.warn(text)
  vim.defer_fn(again, wait)
end

-- One server for all projects: each would hold the model's weights once more.
---@param client vim.lsp.Client
---@param wanted vim.lsp.ClientConfig
---@return boolean
local function reuse_client(client, wanted)
  if client.name ~= NAME or client:is_stopped() then
    return false
  end
  local root = wanted.root_dir
  local known = vim.iter(client.workspace_folders or {}):any(function(folder)
    return folder.uri == vim.uri_from_fname(root or '')
  end)
  if root and not known then
    local folder = { uri = vim.uri_from_fname(root), name = root }
    client.workspace_folders = vim.list_extend(client.workspace_folders or {}, { folder })
    M.with(function()
      client:notify('workspace/didChangeWorkspaceFolders', { event = { added = { folder }, removed = {} } })
    end)
  end
  return true
end

-- Why the server cannot be started; nil where it can.
---@return string?
local function missing()
  local program = config.options.cmd[1]
  if vim.fn.executable(program) == 1 then
    return nil
  end
  local what = ('the program %s was not found. '):format(program)
  return what .. 'Install gemma-ls, or name its path in setup: cmd = { "/path/to/gemma-ls", "lsp" }.'
end

--- Hands the configuration to Neovim, which starts the server with the first file.
function M.enable()
  local options = config.options
  vim.lsp.config(NAME, {
    cmd = options.cmd,
    cmd_env = options.env,
    filetypes = options.filetypes,
    root_markers = options.root_markers,
    settings = section(),
    capabilities = {
      textDocument = { inlineCompletion = { dynamicRegistration = false } },
      experimental = { gemma = { status = true, commands = true } },
    },
    handlers = handlers(),
    on_init = on_init,
    on_attach = on_attach,
    on_exit = vim.schedule_wrap(on_exit),
    reuse_client = reuse_client,
  })
  local why = missing()
  if why then
    status.set({ state = 'failed', message = why, error = why })
    message.error(why)
    return
  end
  vim.lsp.enable(NAME)
end

--- The running client.
---@return vim.lsp.Client?
function M.get()
  for _, client in ipairs(vim.lsp.get_clients({ name = NAME })) do
    if not client:is_stopped() then
      return client
    end
  end
end

--- Calls back with a client; starts the server where no file has.
---@param callback fun(client: vim.lsp.Client)
---@param failed? fun(why: string) where there can be none; else the user is told
function M.with(callback, failed)
  local client = M.get()
  if client then
    callback(client)
    return
  end
  local why = not require('gemma').is_set_up() and "call require('gemma').setup{} in your configuration first."
    or missing()
  if why then
    (failed or message.error)(why)
    return
  end
  table.insert(life.waiting, { callback = callback, failed = failed or message.error })
  if #vim.lsp.get_clients({ name = NAME, _uninitialized = true }) > 0 then
    return
  end
  local start = vim.deepcopy(vim.lsp.config[NAME])
  start.root_dir = vim.fs.root(0, start.root_markers or {}) or vim.fn.getcwd()
  start.settings = section()
  life.stopping = false
  if not vim.lsp.start(start, { attach = false, reuse_client = start.reuse_client }) then
    give_up('gemma-ls could not be started; :Gemma log tells why.')
  end
end

--- Sends a request of ours; the user is told of an error.
---@param method string
---@param params table
---@param callback fun(result: any)
function M.request(method, params, callback)
  M.with(function(client)
    client:request(method, params, function(err, result)
      if err then
        message.error(message.of(err))
      else
        callback(result)
      end
    end)
  end)
end

--- Sends the settings as they are now.
function M.settings_changed()
  vim.lsp.config(NAME, { settings = section() })
  local client = M.get()
  if client then
    client.settings = section()
    client:notify('workspace/didChangeConfiguration', { settings = section() })
  end
end

--- Ends the server and starts it again.
function M.restart()
  local client = M.get()
  life.failures = 0
  if not client then
    life.stopping = false
    M.enable()
    again()
    return
  end
  life.stopping = true
  client:stop()
  local timer = assert(vim.uv.new_timer())
  timer:start(
    20,
    20,
    vim.schedule_wrap(function()
      if vim.lsp.get_client_by_id(client.id) or timer:is_closing() then
        return
      end
      timer:close()
      life.stopping = false
      again()
    end)
  )
end

return M
