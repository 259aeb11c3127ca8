-- A conversation: a question goes out, its answer comes in while it is thought, and what it holds is kept.
local api = vim.api
local client_of = require('gemma.client')
local message = require('gemma.message')

---@class gemma.chat.Wish
---@field method 'gemma/chat'|'gemma/explainImage'
---@field params table what the server is asked, without tokens and history
---@field title string what stands under "You"
---@field source? integer the buffer that is talked about

---@class gemma.chat.Run an answer on its way
---@field wish gemma.chat.Wish
---@field tokens string[] of progress: for the text, and to stop it by
---@field client? vim.lsp.Client
---@field row integer where the answer begins in what was said
---@field text string what came of it
---@field tick? integer the source's text when it was asked
---@field forget? fun() that the server may end

---@class gemma.chat.Session
---@field id string
---@field view gemma.chat.View
---@field turns { role: 'user'|'model', text: string }[] for a server that was started again
---@field blocks gemma.chat.Block[]
---@field references { mark: integer, range: lsp.Range, source?: integer }[]
---@field run? gemma.chat.Run
---@field next? gemma.chat.Wish what is asked once the answer that is on its way has stopped
---@field encoding string in which the server counts
local Session = {}
Session.__index = Session

---@param actions gemma.chat.Actions
---@return gemma.chat.Session
function Session.new(actions)
  return setmetatable({
    id = ('neovim-%d-%d'):format(vim.fn.getpid(), vim.uv.hrtime()),
    turns = {},
    blocks = {},
    references = {},
    encoding = 'utf-8',
    view = require('gemma.chat.view').new(actions),
  }, Session)
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
---@param offset integer
---@return [integer, integer] row and column, from 0
function Session:place(run, offset)
  local before = run.text:sub(1, vim.str_byteindex(run.text, self.encoding, offset, false))
  local _, newlines = before:gsub('\n', '')
  return { run.row + newlines, #before:match('[^\n]*$') }
end

-- Notes where the blocks and the references of an answer are.
---@param run gemma.chat.Run
---@param answer table
function Session:note(run, answer)
  for _, found in ipairs(answer.code or {}) do
    table.insert(self.blocks, {
      first = self:place(run, found.offset)[1],
      last = self:place(run, found.offset + found.length)[1],
      code = found,
      source = run.wish.source,
      tick = run.tick,
    })
  end
  for _, found in ipairs(answer.references or {}) do
    local from, to = self:place(run, found.offset), self:place(run, found.offset + found.length)
    local mark = self.view:mark_reference(from, to)
    table.insert(self.references, { mark = mark, range = found.range, source = run.wish.source })
  end
end

-- Whether this answer is still the one that is waited for, and there is a place for it.
---@param run gemma.chat.Run
---@return boolean
function Session:awaits(run)
  return self.run == run and self.view:is_valid()
end

-- Ends the answer that is on its way with remarks, and asks what waits.
---@param run gemma.chat.Run
---@param remarks string[]
function Session:ended(run, remarks)
  for _, token in ipairs(run.tokens) do
    client_of.unlisten(token)
  end
  if run.forget then
    run.forget()
  end
  local awaited = self:awaits(run)
  if self.run == run then
    self.run = nil
  end
  if not awaited then
    return
  end
  self.view:step(nil)
  -- A fence that was never closed would make code of all that follows.
  local _, fences = ('\n' .. run.text):gsub('\n%s*```', '')
  if fences % 2 == 1 then
    self.view:append('\n```')
  end
  for _, remark in ipairs(remarks) do
    self.view:paragraph('> ' .. remark)
  end
  local wish = self.next
  self.next = nil
  if wish then
    self:ask(wish)
  end
end

local SAYS = {
  cancelled = 'Stopped.',
  length = 'The answer was cut at its longest length.',
  deadline = 'The answer was cut because it took too long.',
}

---@param run gemma.chat.Run
---@param answer table
function Session:answered(run, answer)
  local remarks = vim.list_extend({}, answer.notices or {})
  table.insert(remarks, SAYS[answer.finishReason])
  if self:awaits(run) then
    self.view:append(answer.text:sub(#run.text + 1))
    run.text = answer.text
    self:note(run, answer)
    table.insert(self.turns, { role = 'user', text = run.wish.title })
    table.insert(self.turns, { role = 'model', text = answer.text })
  end
  self:ended(run, remarks)
end

-- What comes while the answer is thought.
---@param run gemma.chat.Run
---@param value table
function Session:heard(run, value)
  if not self:awaits(run) then
    return
  end
  if value.kind == 'context' then
    self.view:append(context_line(value.context) .. '\n\n')
    run.row = self.view:last_row()
  elseif value.kind == 'step' then
    self.view:step(value.message .. ' …')
  elseif value.kind == 'text' then
    if run.text == '' then
      self.view:step(nil)
    end
    run.text = run.text .. value.text
    self.view:append(value.text)
  end
end

-- Sends the question.
---@param run gemma.chat.Run
---@param client vim.lsp.Client
function Session:send(run, client)
  run.client = client
  run.forget = client_of.at_end(function()
    self.next = nil
    self:ended(run, { 'Error: gemma-ls ended before the answer did. Ask again once it is back.' })
  end)
  self.encoding = client.offset_encoding
  local source = run.wish.source
  if source and api.nvim_buf_is_loaded(source) then
    -- The text as it is now, saved or not, is what is talked about.
    vim.lsp.buf_attach_client(source, client.id)
    run.tick = api.nvim_buf_get_changedtick(source)
  end
  local params = vim.tbl_extend('force', run.wish.params, {
    chatId = self.id,
    partialResultToken = run.tokens[1],
    workDoneToken = run.tokens[2],
  })
  if run.wish.method == 'gemma/chat' then
    params.history = self.turns
    params.maxTokens = require('gemma.config').options.chat.max_tokens
  end
  client:request(run.wish.method, params, function(err, answer)
    if err then
      self:ended(run, { 'Error: ' .. message.of(err) })
    else
      self:answered(run, answer)
    end
  end)
end

--- Asks, once the answer that is on its way has stopped.
---@param wish gemma.chat.Wish
function Session:ask(wish)
  self.view:open()
  if self.run then
    self.next = wish
    self:stop()
    return
  end
  self.view:paragraph(('## You\n\n%s\n\n## Gemma\n\n'):format(wish.title))
  self.view:scroll()
  self.view:step('Asking …')
  ---@type gemma.chat.Run
  local run = { wish = wish, tokens = {}, row = self.view:last_row(), text = '' }
  self.run = run
  run.tokens[1] = client_of.listen(function(value)
    self:heard(run, value)
  end)
  -- What the other one tells is told on the first too.
  run.tokens[2] = client_of.listen(function() end)
  client_of.with(function(client)
    if self.run == run then
      self:send(run, client)
    end
  end, function(why)
    self:ended(run, { 'Error: ' .. why })
  end)
end

--- Stops the answer that is on its way; what there is of it stays.
function Session:stop()
  local run = self.run
  if not run then
    return
  elseif run.client then
    -- The server answers then, with what there is.
    run.client:notify('window/workDoneProgress/cancel', { token = run.tokens[2] })
  else
    self:ended(run, { SAYS.cancelled })
  end
end

--- The code block under the cursor; from another window, the last one.
---@return gemma.chat.Block?
function Session:block()
  local row = self.view:cursor_row()
  if not row then
    return self.blocks[#self.blocks]
  end
  return vim.iter(self.blocks):find(function(block)
    return block.first <= row and row <= block.last
  end)
end

--- The lines that are named under the cursor.
---@return { range: lsp.Range, source?: integer }?
function Session:reference()
  local marks = self.view:marks_at_cursor()
  return vim.iter(self.references):find(function(reference)
    return vim.list_contains(marks, reference.mark)
  end)
end

--- Forgets what was said, here and at the server.
function Session:forget()
  self.next = nil
  self:stop()
  local client = client_of.get()
  if client then
    client:request('gemma/forgetChat', { chatId = self.id }, function() end)
  end
  self.view:delete()
end

return Session
