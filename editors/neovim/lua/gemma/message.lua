-- What the user is told, all of it in the same voice.
local M = {}

---@param text string
---@param level integer
local function notify(text, level)
  local function now()
    vim.notify('gemma: ' .. text, level, { title = 'gemma' })
  end
  if vim.in_fast_event() then
    vim.schedule(now)
  else
    now()
  end
end

---@param text string
function M.info(text)
  notify(text, vim.log.levels.INFO)
end

---@param text string
function M.warn(text)
  notify(text, vim.log.levels.WARN)
end

---@param text string
function M.error(text)
  notify(text, vim.log.levels.ERROR)
end

--- An answer's error, as people read it.
---@param err lsp.ResponseError|string
---@return string
function M.of(err)
  return type(err) == 'table' and err.message or tostring(err)
end

return M
