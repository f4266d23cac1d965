<?php
define('DFT_REACHED_THE_END', true);
