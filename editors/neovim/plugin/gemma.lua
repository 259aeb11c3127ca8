-- The command and nothing else: all of it is loaded when it is first used.
if vim.g.loaded_gemma then
  return
end
vim.g.loaded_gemma = true

vim.api.nvim_create_user_command('Gemma', function(command)
  require('gemma.commands').run(command)
end, {
  nargs = '*',
  range = true,
  bang = true,
  complete = function(...)
    return require('gemma.commands').complete(...)
  end,
  desc = 'gemma-ls: chat, status, model and more (see :help gemma)',
})
