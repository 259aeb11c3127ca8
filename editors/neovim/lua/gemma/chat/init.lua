-- Conversations: what is asked, what comes back while it is thought, and what is done with it.
local api = vim.api
local client_of = require('gemma.client')
local code = require('gemma.chat.code')
local message = require('gemma.message')

local M = {}

---@alias gemma.chat.Kind 'ask'|'explain'|'document'|'tests'|'fix'

---@class gemma.chat.Wish
---@field method 'gemma/chat'|'gemma/explainImage'
---@field params table what the server is asked, without tokens and history
---@field title string what stands under "You"
---@field source? integer the buffer that is talked about

---@class gemma.chat.Run an answer on its way
---@field wish gemma.chat.Wish
---@field tokens string[] of progress
---@field client? vim.lsp.Client
---@field row integer where the answer begins in what was said
---@field text string what came of it
---@field tick? integer the source's text when it was asked
---@field forget? fun() that the server may end

---@class gemma.chat.Chat
---@field id string
---@field view gemma.chat.View
---@field turns { role: 'user'|'model', text: string }[] for a server that was started again
---@field blocks gemma.chat.Block[]
---@field references { mark: integer, range: lsp.Range, source?: integer }[]
---@field source? integer the file that was last looked at
---@field run? gemma.chat.Run
---@field next? gemma.chat.Wish what is asked once the answer that is on its way has stopped
---@field encoding string

---@type gemma.chat.Chat?
local chat

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

-- The block under the cursor, or the last one.
---@return gemma.chat.Block?
local function block_here()
  local row = chat and chat.view:cursor_row()
  local blocks = chat and chat.blocks or {}
  if not row then
    return blocks[#blocks]
  end
  return vim.iter(blocks):find(function(block)
    return block.first <= row and row <= block.last
  end)
end

---@param act fun(block: gemma.chat.Block)
local function with_block(act)
  local block = block_here()
  if block then
    act(block)
  else
    message.warn('there is no code block under the cursor.')
  end
end

--- Takes the code block under the cursor into a register; elsewhere, the last one.
function M.yank()
  with_block(code.yank)
end

--- Puts the code block into the file.
function M.insert()
  with_block(code.insert)
end

--- Shows the code block as a difference to the file; there, applies it.
function M.apply()
  code.apply(block_here(), chat and chat.encoding or 'utf-8')
end

--- Goes to the lines that the text under the cursor names.
function M.follow()
  local marks = chat and chat.view:marks_at_cursor() or {}
  local found = chat and vim.iter(chat.references):find(function(reference)
    return vim.list_contains(marks, reference.mark)
  end)
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
  local run = chat and chat.run
  if not run then
    return
  end
  if run.client then
    run.client:notify('window/workDoneProgress/cancel', { token = run.tokens[2] })
  end
end

-- The conversation, with windows that are there.
---@return gemma.chat.Chat
local function current()
  if chat and chat.view:is_valid() then
    return chat
  end
  chat = {
    id = ('neovim-%d-%d'):format(vim.fn.getpid(), vim.uv.hrtime()),
    turns = {},
    blocks = {},
    references = {},
    encoding = 'utf-8',
    view = require('gemma.chat.view').new({
      send = function(question)
        M.chat({ question = question })
      end,
      stop = M.stop,
      yank = M.yank,
      insert = M.insert,
      apply = M.apply,
      follow = M.follow,
      closed = M.stop,
    }),
  }
  api.nvim_create_autocmd('BufEnter', {
    group = api.nvim_create_augroup('gemma.chat', {}),
    desc = 'gemma: the file that is talked about is the one last looked at',
    callback = function(event)
      if chat and is_file(event.buf) then
        chat.source = event.buf
        chat.view:about(name_of(event.buf))
      end
    end,
  })
  return chat
end

---@param n integer
---@param one string
---@return string
local function counted(n, one)
  return ('%d %s%s'):format(n, one, n == 1 and '' or 's')
end

-- What the model was shown, in a line.
---@param context table
---@return string
local function context_line(context)
  local parts = {}
  local lines = context.lines
  if type(context.path) == 'string' then
    parts[#parts + 1] = context.path
  end
  if type(lines) == 'table' then
    parts[#parts + 1] = lines.first == 1 and lines.last == lines.of and counted(lines.of, 'line')
      or ('lines %d to %d of %d'):format(lines.first, lines.last, lines.of)
  end
  if type(context.selection) == 'table' then
    parts[#parts + 1] = ('lines %d to %d selected'):format(context.selection.first, context.selection.last)
  end
  if (context.turns or 0) > 0 then
    parts[#parts + 1] = counted(context.turns, 'earlier question')
  end
  parts[#parts + 1] = counted(context.promptTokens or 0, 'token')
  return '> ' .. table.concat(parts, ', ')
end

-- Where a place of the answer's text stands in what was said.
---@param run gemma.chat.Run
---@param text string
---@param offset integer
---@return [integer, integer] row and column, from 0
local function place(run, text, offset)
  local before = text:sub(1, vim.str_byteindex(text, chat.encoding, offset, false))
  local _, newlines = before:gsub('\n', '')
  return { run.row + newlines, #before:match('[^\n]*$') }
end

-- Notes where the blocks and the references of an answer are.
---@param run gemma.chat.Run
---@param answer table
local function note(run, answer)
  for _, found in ipairs(answer.code or {}) do
    table.insert(chat.blocks, {
      first = place(run, answer.text, found.offset)[1],
      last = place(run, answer.text, found.offset + found.length)[1],
      code = found,
      source = run.wish.source,
      tick = run.tick,
    })
  end
  for _, found in ipairs(answer.references or {}) do
    local from, to = place(run, answer.text, found.offset), place(run, answer.text, found.offset + found.length)
    table.insert(chat.references, {
      mark = chat.view:mark_reference(from, to),
      range = found.range,
      source = run.wish.source,
    })
  end
end

-- Ends the answer that is on its way with a remark or more, and asks what waits.
---@param run gemma.chat.Run
---@param remarks string[]
local function ended(run, remarks)
  for _, token in ipairs(run.tokens) do
    client_of.unlisten(token)
  end
  if run.forget then
    run.forget()
  end
  if not chat or chat.run ~= run then
    return
  end
  chat.run = nil
  if not chat.view:is_valid() then
    return
  end
  chat.view:step(nil)
  -- A fence that was never closed would make code of all that follows.
  local _, fences = ('\n' .. run.text):gsub('\n%s*```', '')
  if fences % 2 == 1 then
    chat.view:append('\n```')
  end
  for _, remark in ipairs(remarks) do
    chat.view:paragraph('> ' .. remark)
  end
  local wish = chat.next
  chat.next = nil
  if wish then
    M.ask_wish(wish)
  end
end

local SAYS = {
  cancelled = 'Stopped.',
  length = 'The answer was cut at its longest length.',
  deadline = 'The answer was cut because it took too long.',
}

---@param run gemma.chat.Run
---@param answer table
local function answered(run, answer)
  if not chat or chat.run ~= run or not chat.view:is_valid() then
    return ended(run, {})
  end
  chat.view:append(answer.text:sub(#run.text + 1))
  run.text = answer.text
  note(run, answer)
  table.insert(chat.turns, { role = 'user', text = run.wish.title })
  table.insert(chat.turns, { role = 'model', text = answer.text })
  local remarks = vim.list_extend({}, answer.notices or {})
  table.insert(remarks, SAYS[answer.finishReason])
  ended(run, remarks)
end

-- What comes while the answer is thought.
---@param run gemma.chat.Run
---@param value table
local function heard(run, value)
  if not chat or chat.run ~= run or not chat.view:is_valid() then
    return
  end
  if value.kind == 'context' then
    chat.view:append(context_line(value.context) .. '\n\n')
    run.row = chat.view:last_row()
  elseif value.kind == 'step' then
    chat.view:step(value.message .. ' …')
  elseif value.kind == 'text' then
    if run.text == '' then
      chat.view:step(nil)
    end
    run.text = run.text .. value.text
    chat.view:append(value.text)
  end
end

--- Asks, once the answer that is on its way has stopped.
---@param wish gemma.chat.Wish
function M.ask_wish(wish)
  local chat = current()
  chat.view:open()
  if chat.run then
    chat.next = wish
    M.stop()
    return
  end
  chat.view:paragraph(('## You\n\n%s\n\n## Gemma\n\n'):format(wish.title))
  chat.view:scroll()
  chat.view:step('Asking …')
  ---@type gemma.chat.Run
  local run = { wish = wish, tokens = {}, row = chat.view:last_row(), text = '' }
  chat.run = run
  run.tokens[1] = client_of.listen(function(value)
    heard(run, value)
  end)
  -- The other token is there to stop the answer by; what it tells is told on the first one too.
  run.tokens[2] = client_of.listen(function() end)
  client_of.with(function(client)
    if chat.run ~= run then
      return
    end
    run.client = client
    run.forget = client_of.at_end(function()
      chat.next = nil
      ended(run, { 'Error: gemma-ls ended before the answer did. Ask again once it is back.' })
    end)
    chat.encoding = client.offset_encoding
    local source = wish.source
    if source and api.nvim_buf_is_loaded(source) then
      -- The text as it is now, saved or not, is what is talked about.
      vim.lsp.buf_attach_client(source, client.id)
      run.tick = api.nvim_buf_get_changedtick(source)
    end
    local params = vim.tbl_extend('force', wish.params, {
      chatId = chat.id,
      partialResultToken = run.tokens[1],
      workDoneToken = run.tokens[2],
    })
    if wish.method == 'gemma/chat' then
      params.history = chat.turns
      params.maxTokens = require('gemma.config').options.chat.max_tokens
    end
    client:request(wish.method, params, function(err, answer)
      if err then
        ended(run, { 'Error: ' .. message.of(err) })
      else
        answered(run, answer)
      end
    end)
  end, function(why)
    ended(run, { 'Error: ' .. why })
  end)
end

-- The file that a question is about: the one in front of the user, or the one they came from.
---@return integer?
local function source_now()
  local bufnr = api.nvim_get_current_buf()
  if is_file(bufnr) then
    return bufnr
  end
  local source = chat and chat.source
  return source and is_file(source) and source or nil
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
  chat.source = source
  chat.view:about(source and name_of(source) or nil)
  if kind == 'ask' and not asking.question then
    chat.view:focus_prompt()
    return
  end
  if kind ~= 'ask' and not source then
    message.warn('there is no file to do this with: open one first.')
    return
  end
  local selected = source and selection(source, asking.range)
  local diagnostics
  if kind == 'fix' and selected then
    diagnostics = vim.lsp.diagnostic.from(vim.iter(vim.diagnostic.get(source))
      :filter(function(diagnostic)
        return diagnostic.lnum >= selected.start.line and diagnostic.lnum <= selected['end'].line
      end)
      :totable())
  end
  M.ask_wish({
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
  current().source = source
  M.ask_wish({
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
  M.ask_wish({
    method = 'gemma/explainImage',
    title = ('%s (%s)'):format(question or 'Explain the picture.', picture.name),
    source = source_now(),
    params = { uri = picture.uri, data = picture.data, name = picture.name, question = question },
  })
end

--- How many answers the conversation has.
---@return integer
function M.answers()
  return chat and #chat.turns / 2 or 0
end

--- Begins anew: the conversation is forgotten, here and by the server.
function M.forget()
  local old = chat
  if not old then
    return
  end
  M.stop()
  local client = client_of.get()
  if client then
    client:request('gemma/forgetChat', { chatId = old.id }, function() end)
  end
  chat = nil
  for _, bufnr in ipairs({ old.view.prompt, old.view.said }) do
    if api.nvim_buf_is_valid(bufnr) then
      api.nvim_buf_delete(bufnr, { force = true })
    end
  end
end

return M
