-- A source for nvim-cmp: require('cmp').register_source('gemma', require('gemma.cmp').new()).
local ask = require('gemma.source')

---@class gemma.cmp.Source
---@field cancel? fun() of the question that is open
local Source = {}
Source.__index = Source

---@return gemma.cmp.Source
function Source.new()
  return setmetatable({}, Source)
end

---@return string
function Source:get_debug_name()
  return 'gemma'
end

---@return boolean
function Source:is_available()
  return ask.client(vim.api.nvim_get_current_buf()) ~= nil
end

---@return string
function Source:get_position_encoding_kind()
  local client = ask.client(vim.api.nvim_get_current_buf())
  return client and client.offset_encoding or 'utf-16'
end

-- nvim-cmp asks behind a word by itself; these are the other places at which code goes on.
local TRIGGERS = vim.split(' .,:;([{=<>+-*/&|!"\'@#$', '')

---@return string[]
function Source:get_trigger_characters()
  return TRIGGERS
end

---@param params table
---@param callback fun(response?: lsp.CompletionList)
function Source:complete(params, callback)
  if self.cancel then
    self.cancel()
  end
  local context = params.context
  local position = { row = context.cursor.row - 1, col = context.cursor.col - 1 }
  local invoked = not context.option or context.option.reason ~= 'auto'
  self.cancel = ask.ask(context.bufnr, position, invoked, function(answer)
    callback({ items = answer.items, isIncomplete = answer.incomplete })
  end)
end

return Source
