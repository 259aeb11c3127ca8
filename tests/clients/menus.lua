-- What nvim-cmp and blink.cmp document of a completion source, asked of the plugin's two. Each case is a function that
-- raises what is wrong; the file that $GEMMA_LS_TEST_REPORT names gets the outcome of each.
local cases = {}

-- Far longer than anything should take.
local PATIENCE = 60000
-- A word is being typed behind wide and astral characters, where units of columns differ.
local BEFORE = 'def fibonacci(n): print("日本 🦀"); return fibonacci(n - 1) + fib'
local AFTER = ''

require('gemma').setup({ ghost = { enabled = false } })

local function wait(condition, what)
  assert(vim.wait(PATIENCE, condition, 10), 'waited in vain for ' .. what)
end

local function client()
  return vim.lsp.get_clients({ name = 'gemma', bufnr = 0 })[1]
end

-- A document with the cursor where BEFORE ends, and a server that has loaded its model.
local function document()
  vim.cmd.edit({ args = { vim.fn.tempname() .. '.py' }, bang = true })
  vim.api.nvim_buf_set_lines(0, 0, -1, false, { '', BEFORE .. AFTER, '', 'print(fibonacci(10))' })
  wait(client, 'the client')
  wait(function()
    local answer = client():request_sync('gemma/status', vim.empty_dict(), PATIENCE, 0)
    return answer and answer.result and answer.result.model.state == 'ready'
  end, 'the model')
end

-- What nvim-cmp passes to `complete`.
local function cmp_params(reason)
  return {
    name = 'gemma',
    option = {},
    offset = #BEFORE + 1 - #'fib',
    completion_context = { triggerKind = 1 },
    context = {
      bufnr = vim.api.nvim_get_current_buf(),
      cursor = { row = 2, col = #BEFORE + 1, line = 1, character = #BEFORE },
      cursor_line = BEFORE .. AFTER,
      cursor_before_line = BEFORE,
      cursor_after_line = AFTER,
      option = { reason = reason or 'auto' },
    },
  }
end

-- What blink.cmp passes to `get_completions`.
local function blink_context(kind)
  return {
    mode = 'default',
    id = 1,
    bufnr = vim.api.nvim_get_current_buf(),
    cursor = { 2, #BEFORE },
    line = BEFORE .. AFTER,
    bounds = { line = BEFORE .. AFTER, line_number = 2, start_col = #BEFORE + 1 - #'fib', length = #'fib' },
    trigger = { initial_kind = kind or 'keyword', kind = kind or 'keyword' },
    providers = { 'gemma' },
  }
end

-- Counts calls and keeps what came last.
local function answers()
  local got = { count = 0 }
  got.callback = function(response)
    got.count = got.count + 1
    got.response = response
  end
  return got
end

-- Lets everything happen that was started, then holds the count against what is right.
local function exactly(got, count)
  wait(function()
    return got.count >= count
  end, ('%d answers'):format(count))
  local settled = false
  local running = vim.lsp.get_clients({ name = 'gemma' })[1]
  if running then
    running:request('gemma/status', vim.empty_dict(), function()
      settled = true
    end)
    vim.wait(PATIENCE, function()
      return settled or running:is_stopped()
    end, 10)
  end
  assert(got.count == count, ('called back %d times, not %d'):format(got.count, count))
end

-- Whether an item can stand where the protocol and both menus want it.
local function check_item(item, encoding)
  assert(type(item.label) == 'string' and item.label:find('%S'), 'a label that shows nothing')
  local range = item.textEdit.range
  assert(range.start.line == 1 and range['end'].line == 1, 'not in the line of the cursor')
  local line = BEFORE .. AFTER
  local from = vim.str_byteindex(line, encoding, range.start.character)
  local to = vim.str_byteindex(line, encoding, range['end'].character)
  assert(from <= #BEFORE and to >= #BEFORE, 'not around the cursor')
  -- Both hold what is typed against this text, and show nothing that does not begin with it.
  local typed = BEFORE:sub(from + 1)
  assert(vim.startswith(item.filterText or item.label, typed), ('%q would be filtered away'):format(typed))
  vim.lsp.util.apply_text_edits({ item.textEdit }, vim.api.nvim_get_current_buf(), encoding)
  local written = table.concat(vim.api.nvim_buf_get_lines(0, 1, -1, false), '\n')
  assert(vim.startswith(written, BEFORE) and #written > #BEFORE, 'what was typed is not kept: ' .. written)
  assert(vim.endswith(written, AFTER .. '\n\nprint(fibonacci(10))'), 'what follows is not kept: ' .. written)
end

function cases.cmp_optional_methods_give_what_they_should()
  local source = require('gemma.cmp').new()
  assert(type(source.complete) == 'function', 'no complete')
  assert(source:is_available() == true, 'not available')
  assert(type(source:get_debug_name()) == 'string', 'no debug name')
  assert(source:get_position_encoding_kind() == client().offset_encoding, 'another position encoding')
end

function cases.cmp_is_asked_while_a_word_is_typed()
  local source = require('gemma.cmp').new()
  local pattern = source.get_keyword_pattern and source:get_keyword_pattern() or [[\k\+]]
  local from = vim.regex([[\%(]] .. pattern .. [[\)\m$]]):match_str(BEFORE)
  assert(from and from < #BEFORE, 'nvim-cmp finds no keyword before the cursor, so it never asks')
  for _, character in ipairs(source.get_trigger_characters and source:get_trigger_characters() or {}) do
    assert(#character == 1, ('nvim-cmp compares one byte, never %q'):format(character))
  end
end

function cases.cmp_has_items_for_the_place()
  local source, got = require('gemma.cmp').new(), answers()
  source:complete(cmp_params(), got.callback)
  exactly(got, 1)
  assert(got.response.isIncomplete == true, 'would not be asked again while typing')
  assert(#got.response.items > 0, 'no item')
  check_item(got.response.items[1], source:get_position_encoding_kind())
end

function cases.cmp_calls_back_for_each_of_two_questions()
  local source, first, second = require('gemma.cmp').new(), answers(), answers()
  source:complete(cmp_params(), first.callback)
  source:complete(cmp_params('manual'), second.callback)
  exactly(first, 1)
  exactly(second, 1)
  assert(#second.response.items > 0, 'the newer question has no item')
end

function cases.cmp_calls_back_where_there_is_no_server()
  vim.cmd.enew()
  local source, got = require('gemma.cmp').new(), answers()
  assert(source:is_available() == false, 'available without a server')
  source:complete(cmp_params(), got.callback)
  wait(function()
    return got.count == 1
  end, 'an answer')
end

function cases.cmp_calls_back_when_the_server_ends()
  local source, got = require('gemma.cmp').new(), answers()
  source:complete(cmp_params(), got.callback)
  client():stop(true)
  exactly(got, 1)
end

function cases.blink_is_made_with_and_without_options()
  for _, options in ipairs({ {}, { some = 'option' } }) do
    local source = require('gemma.blink').new(options, { name = 'gemma', module = 'gemma.blink' })
    assert(source:enabled() == true, 'not enabled')
  end
  assert(require('gemma.blink').new(), 'not without options')
end

function cases.blink_has_items_for_the_place()
  local source, got = require('gemma.blink').new({}), answers()
  local cancel = source:get_completions(blink_context(), got.callback)
  assert(type(cancel) == 'function', 'cannot be cancelled')
  exactly(got, 1)
  assert(got.response.is_incomplete_forward == true, 'would not be asked again while typing')
  assert(type(got.response.is_incomplete_backward) == 'boolean', 'does not say what a deletion does')
  local item = got.response.items[1]
  -- blink.cmp asks the client that the item names, and takes bytes where it names none.
  local owner = item.client_id and vim.lsp.get_client_by_id(item.client_id)
  check_item(item, owner and owner.offset_encoding or 'utf-8')
end

function cases.blink_may_change_the_items()
  local source, first, second = require('gemma.blink').new({}), answers(), answers()
  source:get_completions(blink_context(), first.callback)
  exactly(first, 1)
  local label = first.response.items[1].label
  first.response.items[1].label = 'changed'
  source:get_completions(blink_context(), second.callback)
  exactly(second, 1)
  assert(second.response.items[1].label == label, 'items are shared between answers')
end

function cases.blink_can_be_cancelled_twice()
  local source, got = require('gemma.blink').new({}), answers()
  local cancel = source:get_completions(blink_context('manual'), got.callback)
  cancel()
  cancel()
  exactly(got, 1)
  local again = answers()
  source:get_completions(blink_context('manual'), again.callback)
  exactly(again, 1)
  assert(#again.response.items > 0, 'nothing after a cancelled question')
end

function cases.blink_calls_back_where_there_is_no_server()
  vim.cmd.enew()
  local source, got = require('gemma.blink').new({}), answers()
  assert(source:enabled() == false, 'enabled without a server')
  source:get_completions(blink_context(), got.callback)
  wait(function()
    return got.count == 1
  end, 'an answer')
end

function cases.blink_calls_back_when_the_server_ends()
  local source, got = require('gemma.blink').new({}), answers()
  source:get_completions(blink_context(), got.callback)
  client():stop(true)
  exactly(got, 1)
end

local report = {}
local names = vim.tbl_keys(cases)
table.sort(names)
for _, name in ipairs(names) do
  local ok, problem = pcall(function()
    document()
    cases[name]()
  end)
  report[name] = ok and '' or tostring(problem)
end
vim.fn.writefile({ vim.json.encode(report) }, vim.env.GEMMA_LS_TEST_REPORT)
vim.cmd('qall!')
