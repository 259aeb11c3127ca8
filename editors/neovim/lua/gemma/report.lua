-- What the server tells of itself, as text: the status, the statistics, the log.
local api = vim.api
local client_of = require('gemma.client')

local M = {}

---@param lines string[]
local function show(lines)
  api.nvim_echo({ { table.concat(lines, '\n') } }, true, {})
end

-- A field that is there; JSON's null is not.
---@param value any
---@return any
local function given(value)
  if value ~= vim.NIL then
    return value
  end
end

---@param what string
---@param model table
---@return string
local function model_line(what, model)
  local parts = { model.name and given(model.name) or 'no model' }
  parts[#parts + 1] = model.state
  if given(model.percent) then
    parts[#parts] = ('%s %d %%'):format(model.state, model.percent)
  end
  if given(model.device) then
    parts[#parts + 1] = 'on ' .. model.device
  end
  if given(model.weightBytes) then
    parts[#parts + 1] = ('%.1f GB'):format(model.weightBytes / 1e9)
  end
  if given(model.error) then
    parts[#parts + 1] = model.error
  end
  return ('%s: %s'):format(what, table.concat(parts, ', '))
end

--- The server's status as lines.
---@param status table the answer to `gemma/status`
---@return string[]
function M.status_lines(status)
  local lines = { 'gemma-ls ' .. (status.version or ''), model_line('completion', status.model) }
  for _, use in ipairs({ 'chat', 'pictures' }) do
    if type(status[use]) == 'table' then
      lines[#lines + 1] = model_line(use, status[use])
    end
  end
  if not require('gemma').is_enabled() then
    lines[#lines + 1] = 'grey text: off (:Gemma toggle turns it on)'
  end
  local document = given(status.document)
  if document and given(document.sentence) then
    lines[#lines + 1] = 'this file: ' .. document.sentence
  end
  local last = given(status.completions and status.completions.last)
  if last then
    lines[#lines + 1] = 'last suggestion: ' .. (given(last.sentence) or given(last.reason) or given(last.error) or '')
  end
  lines[#lines + 1] = require('gemma.cost').line()
  for _, problem in ipairs(status.problems or {}) do
    lines[#lines + 1] = 'settings: ' .. problem
  end
  return lines
end

--- Shows the status.
function M.status()
  local bufnr = api.nvim_get_current_buf()
  local is_file = vim.bo[bufnr].buftype == '' and api.nvim_buf_get_name(bufnr) ~= ''
  local params = is_file and { textDocument = { uri = vim.uri_from_bufnr(bufnr) } } or vim.empty_dict()
  client_of.request('gemma/status', params, function(status)
    show(M.status_lines(status))
  end)
end

---@param statistics table
---@return string[]
local function statistics_lines(statistics)
  local share = statistics.shown > 0 and (' (%d %%)'):format(100 * statistics.accepted / statistics.shown) or ''
  local lines = {
    ('Since %s, on this machine:'):format(statistics.since),
    ('%d suggestions shown, %d taken%s'):format(statistics.shown, statistics.accepted, share),
    ('%d whole, %d words, %d lines: %d characters'):format(
      statistics.wholes,
      statistics.words,
      statistics.lines,
      statistics.characters
    ),
    ('about %.1f minutes of typing saved'):format(statistics.timeSavedMs / 60000),
  }
  for language, of in vim.spairs(statistics.languages or {}) do
    lines[#lines + 1] = ('  %s: %d shown, %d taken, %d characters'):format(
      language,
      of.shown,
      of.accepted,
      of.characters
    )
  end
  return lines
end

--- Shows the statistics.
---@param reset? boolean forgets them first
function M.statistics(reset)
  client_of.request('gemma/statistics', { reset = reset or false }, function(statistics)
    show(statistics_lines(statistics))
  end)
end

-- What the server wrote, of Neovim's log of all servers.
---@param path string
---@return string[]
local function server_lines(path)
  local lines = {}
  local program = vim.fs.basename(require('gemma.config').options.cmd[1])
  for line in io.lines(path) do
    local text = line:find(program, 1, true) and line:match('"stderr"%s+["\'](.*)["\']$')
    for part in vim.gsplit(text or '', '\\n', { plain = true, trimempty = true }) do
      lines[#lines + 1] = (part:gsub('\\27%[[%d;]*m', ''):gsub('\\"', '"'))
    end
  end
  return lines
end

--- Shows what the server logged.
function M.log()
  local path = vim.lsp.log.get_filename()
  local lines = vim.fn.filereadable(path) == 1 and server_lines(path) or {}
  if #lines == 0 then
    lines = { 'gemma-ls has written nothing to ' .. path .. ' yet.' }
  end
  local bufnr = api.nvim_create_buf(false, true)
  api.nvim_buf_set_lines(bufnr, 0, -1, true, lines)
  vim.bo[bufnr].bufhidden = 'wipe'
  vim.bo[bufnr].modifiable = false
  api.nvim_buf_set_name(bufnr, ('gemma://%d/log'):format(bufnr))
  vim.cmd('botright sbuffer ' .. bufnr)
  vim.cmd('normal! G')
end

return M
