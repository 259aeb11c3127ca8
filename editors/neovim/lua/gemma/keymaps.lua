-- The keys that the user asked for. Each does what it did before where there is nothing for us to do.
local M = {}

---@class gemma.Action
---@field name string in the options, and with `-` for `_` in `<Plug>(gemma-...)`
---@field says string
---@field run fun(): boolean? false: there was nothing to do

---@type gemma.Action[]
local actions = {
  {
    name = 'accept',
    says = 'take the suggestion',
    run = function()
      return require('gemma').accept()
    end,
  },
  {
    name = 'accept_word',
    says = "take the suggestion's next word",
    run = function()
      return require('gemma').accept_word()
    end,
  },
  {
    name = 'accept_line',
    says = "take the suggestion's next line",
    run = function()
      return require('gemma').accept_line()
    end,
  },
  {
    name = 'next',
    says = 'suggest, or suggest something else',
    run = function()
      require('gemma').next()
    end,
  },
  {
    name = 'dismiss',
    says = 'take the suggestion away',
    run = function()
      return require('gemma').dismiss()
    end,
  },
}

local PREFIX = 'gemma: '

-- Whether an entry of the completion menu is selected: then a key is the menu's.
---@return boolean
local function menu_has_selection()
  return vim.fn.pumvisible() == 1 and vim.fn.complete_info({ 'selected' }).selected ~= -1
end

-- Maps a key in insert mode; what was mapped to it before goes on under a name of its own.
---@param action gemma.Action
---@param lhs string
local function map(action, lhs)
  local without = ('<Plug>(gemma-without-%s)'):format(action.name:gsub('_', '-'))
  local before = vim.fn.maparg(lhs, 'i', false, true)
  local ours = vim.startswith(before.desc or '', PREFIX)
  if not ours and before.buffer == 0 then
    before.lhs, before.lhsraw, before.lhsrawalt = without, vim.keycode(without), nil
    vim.fn.mapset('i', false, before)
  end
  local mapped = vim.fn.mapcheck(without, 'i') ~= ''
  vim.keymap.set('i', lhs, function()
    if menu_has_selection() or action.run() == false then
      return mapped and without or lhs
    end
    return ''
  end, { expr = true, remap = mapped, desc = PREFIX .. action.says })
end

--- Defines the `<Plug>` mappings, which take no key.
function M.plugs()
  for _, action in ipairs(actions) do
    vim.keymap.set('i', ('<Plug>(gemma-%s)'):format(action.name:gsub('_', '-')), function()
      action.run()
    end, { desc = PREFIX .. action.says })
  end
end

--- Maps the keys of the options.
---@param keymaps gemma.Keymaps
function M.set(keymaps)
  for _, action in ipairs(actions) do
    local lhs = keymaps[action.name]
    if lhs and lhs ~= '' then
      map(action, lhs)
    end
  end
end

return M
