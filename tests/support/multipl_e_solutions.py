"""Our own right and wrong completions of six MultiPL-E problems in each language.

The problems themselves are not here: tests read them from ``DFT_TEST_DATA``. A completion goes on
from the prompt's open function; ``AFTER`` is what a model may babble behind it, which the harness
cuts off.
"""

from __future__ import annotations

NAMES = {
    "strlen": "HumanEval_23_strlen",
    "flip": "HumanEval_27_flip_case",
    "add": "HumanEval_53_add",
    "max": "HumanEval_35_max_element",
    "gcd": "HumanEval_13_greatest_common_divisor",
    "distinct": "HumanEval_16_count_distinct_characters",
    "below": "HumanEval_52_below_threshold",
}

AFTER = {
    "cpp": "\n}\nint main() { return 0; }",
    "java": "\n    }\n    public static void main(String[] args) { }\n}",
    "cs": "\n    }\n    public static void Main() { }\n}",
    "php": "\n}\n?>\n<html>",
    "ts": "\n}\n// And a test.\nconst = 3;",
    "js": "\n}\nconsole.log(nonsense(;",
    "sh": "\n}\necho done; exit 3",
    "python": "\n\nif __name__ == '__main__':\n    broken(",
}

RIGHT = {
    "cpp": {
        "strlen": "    return string.size();",
        "add": "    return x + y;",
        "max": "    return *std::max_element(l.begin(), l.end());",
        "gcd": "    while (b != 0) {\n        long rest = a % b;\n        a = b;\n"
        "        b = rest;\n    }\n    return a;",
        "distinct": "    std::set<char> seen;\n"
        "    for (char c : string) seen.insert(std::tolower(c));\n    return seen.size();",
        "below": "    for (long each : l) if (each >= t) return false;\n    return true;",
    },
    "java": {
        "strlen": "        return string.length();",
        "add": "        return x + y;",
        "max": "        return Collections.max(l);",
        "gcd": "        return b == 0 ? a : greatestCommonDivisor(b, a % b);",
        "distinct": "        return string.toLowerCase().chars().distinct().count();",
        "below": "        for (long each : l) {\n            if (each >= t) {\n"
        "                return false;\n            }\n        }\n        return true;",
    },
    "cs": {
        "strlen": "        return str.Length;",
        "add": "        return x + y;",
        "max": "        return l.Max();",
        "gcd": "        return b == 0 ? a : GreatestCommonDivisor(b, a % b);",
        "distinct": "        return str.ToLower().Distinct().Count();",
        "below": "        return l.All(each => each < t);",
    },
    "php": {
        # "strlen" redeclares PHP's own function: nobody can solve it.
        "flip": "    $flip = fn($c) => ctype_upper($c) ? strtolower($c) : strtoupper($c);\n"
        "    return $string === '' ? '' : implode('', array_map($flip, mb_str_split($string)));",
        "add": "    return $x + $y;",
        "max": "    return max($l);",
        "gcd": "    return $b === 0 ? $a : greatest_common_divisor($b, $a % $b);",
        "distinct": "    $letters = str_split(strtolower($string));\n"
        "    return $string === '' ? 0 : count(array_unique($letters));",
        "below": "    foreach ($l as $each) {\n        if ($each >= $t) {\n"
        "            return false;\n        }\n    }\n    return true;",
    },
    "ts": {
        "strlen": "    return string.length;",
        "add": "    return x + y;",
        "max": "    return Math.max(...l);",
        "gcd": "    return b === 0 ? a : greatest_common_divisor(b, a % b);",
        "distinct": "    const seen: Set<string> = new Set(string.toLowerCase());\n"
        "    return seen.size;",
        "below": "    return l.every((each: number) => each < t);",
    },
    "js": {
        "strlen": "    return string.length;",
        "add": "    return x + y;",
        "max": "    return Math.max(...l);",
        "gcd": "    return b === 0 ? a : greatest_common_divisor(b, a % b);",
        "distinct": "    return new Set(string.toLowerCase()).size;",
        "below": "    return l.every(each => each < t);",
    },
    "sh": {
        "strlen": '    echo "${#1}"',
        "add": '    echo "$1 + $2" | bc',
        "max": "    tr ' ' '\\n' <<< \"$1\" | sort -n | tail -n 1",
        "gcd": '    if [ "$2" -eq 0 ]; then\n        echo "$1"\n    else\n'
        '        greatest_common_divisor "$2" "$(($1 % $2))"\n    fi',
        "distinct": '    echo -n "${1,,}" | fold -w 1 | sort -u | grep -c . || true',
        "below": '    for each in $1; do\n        if [ "$each" -ge "$2" ]; then\n'
        "            echo false\n            return\n        fi\n    done\n    echo true",
    },
    "python": {
        "strlen": "    return len(string)",
        "add": "    return x + y",
        "max": "    return max(l)",
        "gcd": "    while b:\n        a, b = b, a % b\n    return a",
        "distinct": "    return len(set(string.lower()))",
        "below": "    return all(each < t for each in l)",
    },
}

# Wrong in different ways: off by one, an unhandled error, does not compile, prints instead of
# returning, forgets a case, leaves before the tests.
WRONG = {
    "cpp": {
        "strlen": "    return string.size() + 1;",
        "add": "    std::exit(0);",
        "max": "    return l.at(l.size());",
        "gcd": "    return a % b",
        "distinct": "    return std::set<char>(string.begin(), string.end()).size();",
        "below": "    return l[0] < t;",
    },
    "java": {
        "strlen": "        return string.length() + 1;",
        "add": "        System.exit(0);\n        return x + y;",
        "max": "        return l.get(l.size());",
        "gcd": "        return a % b",
        "distinct": "        return string.chars().distinct().count();",
        "below": "        return l.get(0) < t;",
    },
    "cs": {
        "strlen": "        return str.Length + 1;",
        "add": "        Environment.Exit(0);\n        return x + y;",
        "max": "        return l[l.Count];",
        "gcd": "        return a % b",
        "distinct": "        return str.Distinct().Count();",
        "below": "        return l[0] < t;",
    },
    "php": {
        "flip": "    return strtolower($string);",
        "add": "    exit(0);",
        "max": "    return $l[count($l)];",
        "gcd": "    return $a % $b",
        "distinct": "    return count(array_unique(str_split($string)));",
        "below": "    return $l[0] < $t;",
    },
    "ts": {
        "strlen": "    return string.length + 1;",
        "add": "    require('process').exit(0);\n    return x + y;",
        "max": "    throw new Error('nothing here');",
        "gcd": "    return String(a % b);",
        "distinct": "    return new Set(string).size;",
        "below": "    return l[0] < t;",
    },
    "js": {
        "strlen": "    return string.length + 1;",
        "add": "    process.exit(0);",
        "max": "    return l.first.second;",
        "gcd": "    return (a % b;",
        "distinct": "    return new Set(string).size;",
        "below": "    return l[0] < t;",
    },
    "sh": {
        "strlen": '    echo "$((${#1} + 1))"',
        "add": '    echo "$1 + $2"',
        "max": "    tr ' ' '\\n' <<< \"$1\" | sort | tail -n 1",
        "gcd": '    if [ "$2" -eq 0 ]; then\n        echo "$1"',
        "distinct": '    echo -n "$1" | fold -w 1 | sort -u | grep -c . || true',
        "below": '    [ "${1%% *}" -lt "$2" ] && echo true || echo false',
    },
    "python": {
        "strlen": "    return len(string) + 1",
        "add": "    raise SystemExit(0)",
        "max": "    return l[len(l)]",
        "gcd": "    return (a % b",
        "distinct": "    return len(set(string))",
        "below": "    return l[0] < t",
    },
}

# Whole answers of a chat to "add": with prose, an example main, imports left out, another class.
ANSWERS = {
    "cpp": "Sure.\n```cpp\n#include <iostream>\nlong helper(long x) { return x; }\n"
    "long add(long x, long y) {\n    return helper(x) + y; // }\n}\n\nint main() {\n"
    '    std::cout << add(1, 2) << "}" << std::endl;\n    return 1;\n}\n```\nDone.',
    "java": "```java\nimport java.util.*;\n\npublic class Problem {\n"
    "    public static long add(long x, long y) {\n        return Helper.sum(x, y);\n    }\n\n"
    '    public static void main(String[] args) {\n        throw new RuntimeException("}");\n'
    "    }\n}\n\nclass Helper {\n    static long sum(long x, long y) { return x + y; }\n}\n```",
    "cs": "```csharp\nclass Problem {\n    public static long Add(long x, long y) => x + y;\n\n"
    "    static void Main() {\n        Environment.Exit(1);\n    }\n}\n```",
    "php": "Here:\n```php\n<?php\nfunction add($x, $y) {\n    return $x + $y;\n}\n?>\n```\nBye.",
    "ts": "```typescript\nconst add = (x: number, y: number): number => x + y;\n```",
    "js": "```javascript\nfunction add(x, y) {\n    return x + y;\n}\n```\nUse it as add(1, 2).",
    "sh": "```bash\n#!/bin/bash\nadd() {\n    echo $(($1 + $2))\n}\nadd 1 2\n```",
    "python": "```python\ndef add(x, y):\n    return x + y\n\nprint(add(1, 2))\n```",
}
