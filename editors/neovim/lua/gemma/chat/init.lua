-- Questions about the file in front of the user, and what is done with the answers.
local api = vim.api
local client_of = require('gemma.client')
local code = require('gemma.chat.code')
local message = require('gemma.message')

local M = {}

---@alias gemma.chat.Kind 'ask'|'explain'|'document'|'tests'|'fix'

---@type gemma.chat.Session?
local session

---@type integer? the file that was last looked at
local last_file

---@param bufnr integer
---@return boolean
local function is_file(bufnr)
  return api.nvim_buf_is_valid(bufnr) and vim.bo[bufnr].buftype == '' and api.nvim_buf_get_name(bufnr) ~= ''
end

---@param bufnr integer
---@return string
local function name_of(bufnr)
  return vim.fn.fnamemodify(api.nvim_buf_get_name(bufnr), ':t')
end

-- The file that a question is about: the one in front of the user, or the one they came from.
---@return integer?
local function source_now()
  local bufnr = api.nvim_get_current_buf()
  if is_file(bufnr) then
    return bufnr
  end
  return last_file and is_file(last_file) and last_file or nil
end

-- The next question is about this file.
---@param bufnr? integer
local function look_at(bufnr)
  last_file = bufnr
  if session and session.view:is_valid() then
    session.view:about(bufnr and name_of(bufnr) or nil)
  end
end

-- The conversation, with buffers that are there.
---@return gemma.chat.Session
local function current()
  if session and session.view:is_valid() then
    return session
  end
  session = require('gemma.chat.session').new({
    send = function(question)
      M.chat({ question = question })
    end,
    stop = M.stop,
    yank = M.yank,
    insert = M.insert,
    apply = M.apply,
    follow = M.follow,
    closed = M.stop,
  })
  api.nvim_create_autocmd('BufEnter', {
    group = api.nvim_create_augroup('gemma.chat', {}),
    desc = 'gemma: the file that is talked about is the one last looked at',
    callback = function(event)
      if is_file(event.buf) then
        look_at(event.buf)
      end
    end,
  })
  return session
end

---@param act fun(block: gemma.chat.Block)
local function with_block(act)
  local block = session and session:block()
  if block then
    act(block)
  else
    message.warn('there is no code block under the cursor.')
  end
end

--- Takes the code block under the cursor into a register; from another window, the last one.
function M.yank()
  with_block(code.yank)
end

--- Puts the code block into the file.
function M.insert()
  with_block(code.insert)
end

--- Shows the code block as a difference to the file; there, applies it.
function M.apply()
  code.apply(session and session:block(), session and session.encoding or 'utf-8')
end

--- Goes to the lines that the text under the cursor names.
function M.follow()
  local found = session and session:reference()
  if not (found and found.source and api.nvim_buf_is_valid(found.source)) then
    message.warn('no lines of a file are named here.')
    return
  end
  vim.fn.bufload(found.source)
  api.nvim_set_current_win(code.window_for(found.source))
  vim.cmd("normal! m'")
  local last = api.nvim_buf_line_count(found.source)
  api.nvim_win_set_cursor(0, { math.min(found.range.start.line + 1, last), 0 })
  vim.cmd('normal! zv')
end

--- Stops the answer that is on its way; what there is of it stays.
function M.stop()
  if session then
    session:stop()
  end
end

---@param bufnr integer
---@param row integer from 0
---@param col integer in bytes
---@return lsp.Position
local function position(bufnr, row, col)
  local client = client_of.get()
  local line = api.nvim_buf_get_lines(bufnr, row, row + 1, false)[1] or ''
  return { line = row, character = vim.str_utfindex(line, client and client.offset_encoding or 'utf-8', col, false) }
end

-- The lines of a range, or the cursor.
---@param bufnr integer
---@param range? [integer, integer] lines, from 1
---@return lsp.Range?
local function selection(bufnr, range)
  if range then
    local last = api.nvim_buf_get_lines(bufnr, range[2] - 1, range[2], false)[1] or ''
    return { start = { line = range[1] - 1, character = 0 }, ['end'] = position(bufnr, range[2] - 1, #last) }
  end
  local win = vim.fn.bufwinid(bufnr)
  if win ~= -1 then
    local row, col = unpack(api.nvim_win_get_cursor(win))
    local at = position(bufnr, row - 1, col)
    return { start = at, ['end'] = at }
  end
end

local WISHES = {
  explain = 'Explain',
  document = 'Write documentation for',
  tests = 'Write tests for',
  fix = 'Find the bug in',
}

-- What stands under "You" for a wish that came without words.
---@param kind gemma.chat.Kind
---@param bufnr? integer
---@param range? lsp.Range
---@return string
local function in_words(kind, bufnr, range)
  local file = bufnr and name_of(bufnr) or 'this'
  local first, last = range and range.start.line + 1, range and range['end'].line + 1
  local empty = range and vim.deep_equal(range.start, range['end'])
  local place = file
  if range and not empty then
    place = first == last and ('line %d of %s'):format(first, file)
      or ('lines %d to %d of %s'):format(first, last, file)
  end
  return ('%s %s.'):format(WISHES[kind] or 'Look at', place)
end

---@class gemma.chat.Asking
---@field kind? gemma.chat.Kind
---@field question? string
---@field range? [integer, integer] lines, from 1
---@field fresh? boolean a new conversation

--- Asks about the file in front of the user; without a question, moves to where one is written.
---@param asking gemma.chat.Asking
function M.chat(asking)
  if asking.fresh then
    M.forget()
  end
  local source, kind = source_now(), asking.kind or 'ask'
  local chat = current()
  look_at(source)
  if kind == 'ask' and not asking.question then
    chat.view:focus_prompt()
    return
  end
  if kind ~= 'ask' and not source then
    message.warn('there is no file to do this with: open one, or save the text under a name.')
    return
  end
  local selected = source and selection(source, asking.range)
  local diagnostics
  if kind == 'fix' and selected then
    diagnostics = vim.lsp.diagnostic.from(vim
      .iter(vim.diagnostic.get(source))
      :filter(function(diagnostic)
        return diagnostic.lnum >= selected.start.line and diagnostic.lnum <= selected['end'].line
      end)
      :totable())
  end
  chat:ask({
    method = 'gemma/chat',
    title = asking.question or in_words(kind, source, selected),
    source = source,
    params = {
      kind = kind,
      question = asking.question,
      textDocument = source and { uri = vim.uri_from_bufnr(source) },
      selection = selected,
      diagnostics = diagnostics and #diagnostics > 0 and diagnostics or nil,
    },
  })
end

--- Asks what a code action asks.
---@param params table
function M.ask(params)
  local uri = params.textDocument and params.textDocument.uri
  local source = uri and vim.uri_to_bufnr(uri) or nil
  local chat = current()
  look_at(source)
  chat:ask({
    method = 'gemma/chat',
    title = params.question or in_words(params.kind or 'ask', source, params.selection),
    source = source,
    params = params,
  })
end

--- Asks about a picture.
---@param picture { uri?: string, data?: string, name: string }
---@param question? string
function M.image(picture, question)
  current():ask({
    method = 'gemma/explainImage',
    title = ('%s (%s)'):format(question or 'Explain the picture.', picture.name),
    source = source_now(),
    params = { uri = picture.uri, data = picture.data, name = picture.name, question = question },
  })
end

--- How many answers the conversation has.
---@return integer
function M.answers()
  return session and #session.turns / 2 or 0
end

--- Begins anew: the conversation is forgotten, here and by the server.
function M.forget()
  local old = session
  session = nil
  if old then
    old:forget()
  end
end

return M
