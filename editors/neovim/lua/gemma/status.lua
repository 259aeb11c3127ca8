-- What the server last said of itself, for a statusline: nothing is computed when the screen is drawn.
local api = vim.api
local M = {}

---@class gemma.Status
---@field state 'off'|'stopped'|'loading'|'ready'|'working'|'failed'
---@field message string one line
---@field percent? integer
---@field model? string
---@field device? string
---@field error? string

---@type gemma.Status
M.current = { state = 'stopped', message = 'gemma-ls is not running' }

-- How the state is written in a statusline; `%` is doubled, since a statusline reads it.
---@param status gemma.Status
---@return string
local function line(status)
  if status.state == 'ready' then
    return 'gemma'
  elseif status.state == 'loading' and status.percent then
    return ('gemma %d%%%%'):format(status.percent)
  elseif status.state == 'working' then
    return 'gemma …'
  end
  return 'gemma ' .. status.state
end

local text = ''
local enabled = true

local function update()
  local before = text
  text = enabled and line(M.current) or 'gemma off'
  if text ~= before then
    api.nvim_exec_autocmds('User', { pattern = 'GemmaStatus', modeline = false })
    vim.cmd.redrawstatus({ bang = true })
  end
end

--- Takes what the server says.
---@param status gemma.Status
function M.set(status)
  M.current = status
  update()
end

--- Takes whether grey text is on.
---@param on boolean
function M.set_enabled(on)
  enabled = on
  update()
end

--- For a statusline: `%{%v:lua.require'gemma'.statusline()%}`.
---@return string
function M.statusline()
  return text
end

return M
