#!/usr/bin/sysbench
-- Repeats one query. With --db-ps-mode=auto it is prepared once per thread, with disable it is sent as text each time.

sysbench.cmdline.options = { query = { "The query to repeat", "select 1" } }

function thread_init()
   drv = sysbench.sql.driver()
   con = drv:connect()
   stmt = con:prepare(sysbench.opt.query)
end

function thread_done()
   stmt:close()
   con:disconnect()
end

function event()
   local rs = stmt:execute()
   if rs then rs:free() end
end
