-- A source for blink.cmp: sources.providers.gemma = { name = 'gemma', module = 'gemma.blink', async = true }.
local ask = require('gemma.source')

---@class gemma.blink.Source
local Source = {}
Source.__index = Source

---@return gemma.blink.Source
function Source.new()
  return setmetatable({}, Source)
end

---@return boolean
function Source:enabled()
  return ask.client(vim.api.nvim_get_current_buf()) ~= nil
end

---@param context table
---@param callback fun(response: table)
---@return fun() cancel
function Source:get_completions(context, callback)
  local client = ask.client(context.bufnr)
  local position = { row = context.cursor[1] - 1, col = context.cursor[2] }
  local invoked = context.trigger and context.trigger.kind == 'manual' or false
  return ask.ask(context.bufnr, position, invoked, function(answer)
    for _, item in ipairs(answer.items) do
      -- By it blink.cmp knows in which units the item's positions count.
      item.client_id = client and client.id
    end
    callback({
      items = answer.items,
      is_incomplete_forward = true,
      is_incomplete_backward = answer.incomplete,
    })
  end)
end

return Source
