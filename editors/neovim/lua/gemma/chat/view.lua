-- What a conversation looks like: a buffer that holds what was said, and below it one to write the next question in.
local api = vim.api

---@class gemma.chat.View
---@field said integer the buffer of what was said
---@field prompt integer the buffer of the next question
---@field actions gemma.chat.Actions
---@field subject? string what the next question is about
---@field mark? integer what is going on, in grey
local View = {}
View.__index = View

---@class gemma.chat.Actions what keys in the two buffers do
---@field send fun(question: string)
---@field stop fun()
---@field yank fun()
---@field insert fun()
---@field apply fun()
---@field follow fun()
---@field closed fun()

local namespace = api.nvim_create_namespace('gemma.chat')
local PROMPT_HEIGHT = 4 -- one of them says what the question is about
local KEYS = {
  'Enter in the lower window sends the question; Ctrl-C stops the answer.',
  'gy yanks the code block under the cursor, gp puts it behind the line of the cursor in the file,',
  'ga shows it as a difference and applies it. Enter on a marked line reference goes there.',
  'i goes to the question, ]] and [[ to the next and the last one, q closes the windows.',
}

---@param name string
---@param filetype string
---@return integer
local function scratch(name, filetype)
  local bufnr = api.nvim_create_buf(false, true)
  api.nvim_buf_set_name(bufnr, ('gemma://%d/%s'):format(bufnr, name))
  vim.bo[bufnr].bufhidden = 'hide'
  vim.bo[bufnr].swapfile = false
  vim.bo[bufnr].filetype = filetype
  return bufnr
end

-- Highlights Markdown, by the syntax tree where Neovim has the parser.
---@param bufnr integer
local function as_markdown(bufnr)
  if not pcall(vim.treesitter.start, bufnr, 'markdown') then
    vim.bo[bufnr].syntax = 'markdown'
  end
end

---@param actions gemma.chat.Actions
---@return gemma.chat.View
function View.new(actions)
  local self = setmetatable({
    said = scratch('chat', 'gemma-chat'),
    prompt = scratch('prompt', 'gemma-prompt'),
    actions = actions,
  }, View)
  vim.bo[self.said].modifiable = false
  vim.bo[self.said].undolevels = -1
  as_markdown(self.said)
  self:map()
  return self
end

--- Whether its buffers are still there: a user may wipe them out.
---@return boolean
function View:is_valid()
  return api.nvim_buf_is_valid(self.said) and api.nvim_buf_is_valid(self.prompt)
end

function View:map()
  local actions = self.actions
  local function both(mode, lhs, rhs, desc)
    for _, bufnr in ipairs({ self.said, self.prompt }) do
      vim.keymap.set(mode, lhs, rhs, { buffer = bufnr, desc = 'gemma: ' .. desc, nowait = true })
    end
  end
  local function said(lhs, rhs, desc)
    vim.keymap.set('n', lhs, rhs, { buffer = self.said, desc = 'gemma: ' .. desc, nowait = true })
  end
  local function send()
    self:send()
  end
  vim.keymap.set({ 'n', 'i' }, '<CR>', send, { buffer = self.prompt, desc = 'gemma: send the question' })
  for _, lhs in ipairs({ '<S-CR>', '<M-CR>' }) do
    vim.keymap.set('i', lhs, '<CR>', { buffer = self.prompt, desc = 'gemma: a new line in the question' })
  end
  both('n', '<C-c>', actions.stop, 'stop the answer')
  vim.keymap.set('i', '<C-c>', actions.stop, { buffer = self.prompt, desc = 'gemma: stop the answer' })
  both('n', 'q', function()
    self:close()
  end, 'close the windows')
  both('n', 'g?', function()
    vim.notify(table.concat(KEYS, '\n'))
  end, 'what the keys do')
  said('gy', actions.yank, 'yank the code block')
  said('gp', actions.insert, 'put the code block into the file')
  said('ga', actions.apply, 'show the code block as a difference')
  said('<CR>', actions.follow, 'go to the lines')
  said(']]', function()
    vim.fn.search('^## ', 'W')
  end, 'next turn')
  said('[[', function()
    vim.fn.search('^## ', 'bW')
  end, 'last turn')
  for _, lhs in ipairs({ 'i', 'a', 'o', 'I', 'A', 'O' }) do
    said(lhs, function()
      self:focus_prompt()
    end, 'write a question')
  end
end

---@param bufnr integer
---@return integer? win in this tab page
local function window_of(bufnr)
  for _, win in ipairs(api.nvim_tabpage_list_wins(0)) do
    if api.nvim_win_get_buf(win) == bufnr then
      return win
    end
  end
end

-- Columns or lines of the split.
---@param of integer
---@return integer
local function size(of)
  local wanted = require('gemma.config').options.chat.size
  return math.max(10, math.floor(wanted < 1 and of * wanted or wanted))
end

---@param win integer
local function plain(win)
  for option, value in pairs({
    number = false,
    relativenumber = false,
    signcolumn = 'no',
    foldcolumn = '0',
    spell = false,
    list = false,
    wrap = true,
    linebreak = true,
    cursorline = false,
  }) do
    api.nvim_set_option_value(option, value, { win = win, scope = 'local' })
  end
end

--- Shows the windows, where they are not shown yet. The cursor stays where it is.
function View:open()
  local here = api.nvim_get_current_win()
  local said = window_of(self.said)
  if not said then
    local position = require('gemma.config').options.chat.position
    local beside = position == 'right' or position == 'left'
    said = api.nvim_open_win(self.said, false, {
      split = position,
      win = -1,
      width = beside and size(vim.o.columns) or nil,
      height = not beside and size(vim.o.lines) or nil,
    })
    plain(said)
    self:scroll()
  end
  if not window_of(self.prompt) then
    local prompt = api.nvim_open_win(self.prompt, false, { split = 'below', win = said, height = PROMPT_HEIGHT })
    plain(prompt)
    vim.wo[prompt].winfixheight = true
    self:about(self.subject)
    -- One without the other is of no use.
    api.nvim_create_autocmd('WinClosed', {
      pattern = { tostring(said), tostring(prompt) },
      once = true,
      desc = 'gemma: close the other window of the chat',
      callback = function()
        vim.schedule(function()
          self:close()
        end)
      end,
    })
  end
  api.nvim_set_current_win(here)
end

--- Says above the question what it is about.
---@param subject? string
function View:about(subject)
  self.subject = subject
  local win = window_of(self.prompt)
  if win then
    local about = subject and ('Question about ' .. subject:gsub('%%', '%%%%')) or 'Question'
    api.nvim_set_option_value('winbar', about .. ' %=%#GemmaContext#g?: keys', { win = win, scope = 'local' })
  end
end

--- Closes the windows; what was said is kept.
function View:close()
  for _, bufnr in ipairs({ self.prompt, self.said }) do
    local win = api.nvim_buf_is_valid(bufnr) and window_of(bufnr)
    if win then
      pcall(api.nvim_win_close, win, true)
    end
  end
  self.actions.closed()
end

--- Takes the windows and the buffers away.
function View:delete()
  for _, bufnr in ipairs({ self.prompt, self.said }) do
    if api.nvim_buf_is_valid(bufnr) then
      api.nvim_buf_delete(bufnr, { force = true })
    end
  end
end

--- Moves to the window for the question.
function View:focus_prompt()
  self:open()
  api.nvim_set_current_win(assert(window_of(self.prompt)))
  vim.cmd.startinsert({ bang = true })
end

function View:send()
  local question = vim.trim(table.concat(api.nvim_buf_get_lines(self.prompt, 0, -1, true), '\n'))
  if question ~= '' then
    api.nvim_buf_set_lines(self.prompt, 0, -1, true, {})
    self.actions.send(question)
  end
end

--- Moves to the end of what was said, in all windows.
function View:scroll()
  local last = api.nvim_buf_line_count(self.said)
  for _, win in ipairs(vim.fn.win_findbuf(self.said)) do
    api.nvim_win_set_cursor(win, { last, 0 })
  end
end

--- Adds text behind what was said; windows whose cursor stands at the end follow it.
---@param text string
function View:append(text)
  local bufnr = self.said
  local last = api.nvim_buf_line_count(bufnr)
  local following = vim.tbl_filter(function(win)
    return api.nvim_win_get_cursor(win)[1] == last
  end, vim.fn.win_findbuf(bufnr))
  vim.bo[bufnr].modifiable = true
  local column = #api.nvim_buf_get_lines(bufnr, last - 1, last, true)[1]
  api.nvim_buf_set_text(bufnr, last - 1, column, last - 1, column, vim.split(text, '\n', { plain = true }))
  vim.bo[bufnr].modifiable = false
  for _, win in ipairs(following) do
    api.nvim_win_set_cursor(win, { api.nvim_buf_line_count(bufnr), 0 })
  end
end

--- Adds a paragraph of its own: with an empty line before it, where there is text.
---@param text string
function View:paragraph(text)
  local count = api.nvim_buf_line_count(self.said)
  local before, last = unpack(api.nvim_buf_get_lines(self.said, math.max(0, count - 2), count, true))
  if count == 1 then
    before, last = '', before
  end
  local gap = last ~= '' and '\n\n' or before ~= '' and '\n' or ''
  self:append(gap .. text)
end

--- The last line of what was said, from 0.
---@return integer
function View:last_row()
  return api.nvim_buf_line_count(self.said) - 1
end

--- Says in grey, below the text, what is going on; nil when nothing is.
---@param text? string
function View:step(text)
  if not api.nvim_buf_is_valid(self.said) then
    return
  end
  if self.mark then
    api.nvim_buf_del_extmark(self.said, namespace, self.mark)
    self.mark = nil
  end
  if text then
    self.mark = api.nvim_buf_set_extmark(self.said, namespace, self:last_row(), 0, {
      virt_lines = { { { text, 'GemmaContext' } } },
    })
  end
end

--- Marks a place in what was said.
---@param from [integer, integer] row and column, from 0
---@param to [integer, integer]
---@return integer mark
function View:mark_reference(from, to)
  return api.nvim_buf_set_extmark(self.said, namespace, from[1], from[2], {
    end_row = to[1],
    end_col = to[2],
    hl_group = 'GemmaReference',
  })
end

--- The marks under the cursor.
---@return integer[]
function View:marks_at_cursor()
  local row, col = unpack(api.nvim_win_get_cursor(0))
  local marks = api.nvim_buf_get_extmarks(self.said, namespace, { row - 1, col }, { row - 1, col }, { overlap = true })
  return vim.tbl_map(function(mark)
    return mark[1]
  end, marks)
end

--- The row of the cursor in what was said, from 0; nil where the cursor is elsewhere.
---@return integer?
function View:cursor_row()
  if api.nvim_get_current_buf() == self.said then
    return api.nvim_win_get_cursor(0)[1] - 1
  end
end

return View
