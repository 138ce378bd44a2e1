// All in one process: one browser is enough.

import './fetch.mjs'
import './login.mjs'
import './neon.mjs'
import './websocket.mjs'
