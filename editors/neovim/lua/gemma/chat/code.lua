-- What becomes of a block of code in an answer: yanked, put into the file, or shown as a difference and applied.
local api = vim.api
local message = require('gemma.message')

local M = {}

---@class gemma.chat.Code
---@field language string
---@field text string
---@field edit? { textDocument: { uri: string, version?: integer }, range: lsp.Range, newText: string }

---@class gemma.chat.Block
---@field first integer the first row in what was said, from 0
---@field last integer
---@field code gemma.chat.Code
---@field source? integer the buffer that was talked about
---@field tick? integer its text then

--- Into the unnamed register.
---@param block gemma.chat.Block
function M.yank(block)
  local lines = vim.split(block.code.text:gsub('\n$', ''), '\n', { plain = true })
  vim.fn.setreg(vim.v.register, lines, 'l')
  message.info(('%d lines are in the register %s.'):format(#lines, vim.v.register))
end

-- A window of this tab page that shows the buffer; one is made where there is none.
---@param bufnr integer
---@return integer
function M.window_for(bufnr)
  for _, win in ipairs(api.nvim_tabpage_list_wins(0)) do
    if api.nvim_win_get_buf(win) == bufnr then
      return win
    end
  end
  for _, win in ipairs(api.nvim_tabpage_list_wins(0)) do
    local shown = api.nvim_win_get_buf(win)
    if vim.bo[shown].buftype == '' and (not vim.bo[shown].modified or vim.o.hidden) then
      api.nvim_win_set_buf(win, bufnr)
      return win
    end
  end
  return api.nvim_open_win(bufnr, false, { split = 'left', win = -1 })
end

--- Behind the line of the file's cursor.
---@param block gemma.chat.Block
function M.insert(block)
  local source = block.source
  if not (source and api.nvim_buf_is_loaded(source)) then
    message.warn('there is no file to put the block into. :Gemma yank takes it into a register.')
    return
  end
  if not vim.bo[source].modifiable then
    message.warn('the file cannot be changed (see :help modifiable).')
    return
  end
  local win = M.window_for(source)
  api.nvim_set_current_win(win)
  api.nvim_put(vim.split(block.code.text:gsub('\n$', ''), '\n', { plain = true }), 'l', true, true)
end

-- Why an edit cannot be applied any more; nil where it can.
---@param block gemma.chat.Block
---@param bufnr integer
---@return string?
local function stale(block, bufnr)
  local version = block.code.edit and block.code.edit.textDocument.version
  local now = vim.lsp.util.buf_versions[bufnr]
  local changed
  if type(version) == 'number' and now then
    changed = version ~= now
  else
    changed = block.tick ~= api.nvim_buf_get_changedtick(bufnr)
  end
  if changed then
    return 'the file has changed since the answer, so the block may not belong there any more. '
      .. 'Ask again, or take it with :Gemma yank.'
  end
  if not vim.bo[bufnr].modifiable or vim.bo[bufnr].readonly then
    return 'the file cannot be changed (see :help modifiable and :help readonly).'
  end
end

---@class gemma.chat.Proposal
---@field block gemma.chat.Block
---@field bufnr integer the file
---@field tab integer
---@field encoding string

---@type gemma.chat.Proposal?
local shown

local function close()
  local proposal = shown
  shown = nil
  if proposal and api.nvim_tabpage_is_valid(proposal.tab) then
    for _, win in ipairs(api.nvim_tabpage_list_wins(proposal.tab)) do
      api.nvim_win_call(win, function()
        vim.cmd.diffoff()
      end)
    end
    if #api.nvim_list_tabpages() > 1 then
      vim.cmd.tabclose(api.nvim_tabpage_get_number(proposal.tab))
    end
  end
end

-- Puts what is shown into the file.
local function apply()
  local proposal = shown
  if not proposal then
    return
  end
  local why = stale(proposal.block, proposal.bufnr)
  close()
  if why then
    message.warn(why)
    return
  end
  local edit = proposal.block.code.edit
  vim.lsp.util.apply_text_edits({ { range = edit.range, newText = edit.newText } }, proposal.bufnr, proposal.encoding)
  message.info('the block is in the file; u undoes it.')
end

-- The file with the edit in it, in a buffer of its own.
---@param bufnr integer
---@param edit table
---@param encoding string
---@return integer
local function proposed(bufnr, edit, encoding)
  local scratch = api.nvim_create_buf(false, true)
  api.nvim_buf_set_lines(scratch, 0, -1, true, api.nvim_buf_get_lines(bufnr, 0, -1, true))
  vim.lsp.util.apply_text_edits({ { range = edit.range, newText = edit.newText } }, scratch, encoding)
  vim.bo[scratch].bufhidden = 'wipe'
  vim.bo[scratch].modifiable = false
  api.nvim_buf_set_name(scratch, ('gemma://%d/proposal'):format(scratch))
  local filetype = vim.bo[bufnr].filetype
  if not pcall(vim.treesitter.start, scratch, vim.treesitter.language.get_lang(filetype) or filetype) then
    vim.bo[scratch].syntax = filetype
  end
  return scratch
end

--- Shows the block as a difference to the file, in a tab page of its own; called there, applies it.
---@param block? gemma.chat.Block
---@param encoding string
function M.apply(block, encoding)
  if shown and api.nvim_get_current_tabpage() == shown.tab then
    apply()
    return
  end
  if not block then
    message.warn('there is no code block under the cursor.')
    return
  end
  local edit = block.code.edit
  if type(edit) ~= 'table' then
    message.warn(
      'the answer does not say what this block replaces. '
        .. ':Gemma insert puts it behind the cursor, :Gemma yank into a register.'
    )
    return
  end
  local bufnr = vim.uri_to_bufnr(edit.textDocument.uri)
  vim.fn.bufload(bufnr)
  local why = stale(block, bufnr)
  if why then
    message.warn(why)
    return
  end
  close()
  vim.cmd('tab sbuffer ' .. bufnr)
  local scratch = proposed(bufnr, edit, encoding)
  vim.cmd.diffthis()
  api.nvim_set_option_value('winbar', 'The file as it is', { scope = 'local' })
  api.nvim_win_set_cursor(0, { edit.range.start.line + 1, 0 })
  api.nvim_open_win(scratch, true, { split = 'right', win = 0 })
  vim.cmd.diffthis()
  api.nvim_win_set_cursor(0, { math.min(edit.range.start.line + 1, api.nvim_buf_line_count(scratch)), 0 })
  shown = { block = block, bufnr = bufnr, tab = api.nvim_get_current_tabpage(), encoding = encoding }
  vim.keymap.set('n', '<CR>', apply, { buffer = scratch, desc = 'gemma: apply the difference' })
  vim.keymap.set('n', 'q', close, { buffer = scratch, nowait = true, desc = 'gemma: leave the file as it is' })
  api.nvim_set_option_value('winbar', 'With the block: Enter applies it, q does not', { scope = 'local' })
end

return M
