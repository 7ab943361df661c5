<?php
// The nodes, for a back end in PHP: tokens, REST calls, and signatures of webhooks. Copy this file.
ini_set('display_errors', '0'); // an error is logged, and answered with status 500
define('KEY', getenv('CHAT_KEY') ?: throw new RuntimeException('CHAT_KEY is not set'));
define('URL', getenv('NODES_URL') ?: 'http://127.0.0.1:8080');
const HUB = 'chat';
const SIGNED = ['X_ASRS_CONNECTION_ID', 'X_ASRS_HUB', 'X_ASRS_CATEGORY', 'X_ASRS_EVENT', 'X_TRUNKLINE_EVENT_NUMBER',
    'X_ASRS_USER_ID', 'X_ASRS_USER_CLAIMS', 'X_ASRS_CLIENT_QUERY', 'X_TRUNKLINE_CLIENT_DATA', 'CONTENT_TYPE'];

// Signs a token that is valid for an hour.
function token(array $claims): string
{
    $base64 = fn($bytes) => rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    $claims += ['iat' => time(), 'exp' => time() + 3600];
    $text = $base64('{"alg":"HS256","typ":"JWT"}') . '.' . $base64(json_encode($claims));
    return $text . '.' . $base64(hash_hmac('sha256', $text, KEY, true));
}

// Calls the REST API. It is no error if the connection, group or user does not exist.
function rest(string $method, string $path, ?array $body = null): array
{
    // `users/..` would address all clients.
    array_intersect(['.', '..'], explode('/', $path)) && throw new InvalidArgumentException("invalid name in $path");
    static $curl; // keeps its connection open during a request
    $curl ??= curl_init();
    [$api, $attempt] = [URL . '/api/hubs/' . HUB . '/', 0];
    $headers = ['Authorization: Bearer ' . token(['aud' => $api]), 'Content-Type: application/json'];
    curl_setopt_array($curl, [CURLOPT_URL => $api . $path, CURLOPT_CUSTOMREQUEST => $method]);
    curl_setopt_array($curl, [CURLOPT_HTTPHEADER => $headers, CURLOPT_POSTFIELDS => $body ? json_encode($body) : '']);
    curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 10]);
    do { // after a 503 nothing was sent: the node is stopping or busy, or another one has crashed
        $text = curl_exec($curl) ?: curl_error($curl);
        [$answer, $status] = [json_decode($text, true) ?? [], curl_getinfo($curl, CURLINFO_RESPONSE_CODE)];
    } while ($status === 503 && isset($answer['code']) && $attempt++ < 8 && sleep(1) === 0);
    if (($status < 200 || $status > 299) && !preg_match('/^(Warning|Info|Error\.Connection)/', $answer['code'] ?? '')) {
        throw new RuntimeException("$method $api$path: $status $text");
    }
    return $answer;
}

// Calls a method of the clients of a path, such as `groups/red`. Returns their number.
function send(string $path, string $target, ...$values): int
{
    return rest('POST', "$path/:send", ['target' => $target, 'arguments' => $values])['clients'] ?? 0;
}

// An error whose text is the answer, with its code as status.
class Refused extends Exception
{
}

// Returns the claims of a user as pairs of type and value. A search in the text would find what users write into other claims.
function read_claims(string $text): array
{
    $pairs = [];
    foreach ($text === '' ? [] : explode(', ', $text) as $part) {
        if (str_contains($part, ': ')) {
            $pairs[] = explode(': ', $part, 2);
        } elseif ($pairs) {
            $pairs[array_key_last($pairs)][1] .= ", $part"; // a comma inside a value
        }
    }
    return array_map(fn($pair) => str_replace('%2C', ',', $pair), $pairs);
}

// Returns the event of a webhook. Throws if its signature is wrong or older than five minutes.
function read(string $body): array
{
    $signatures = explode(',', $_SERVER['HTTP_X_TRUNKLINE_SIGNATURE'] ?? '');
    $seconds = substr(array_shift($signatures), 2);
    $values = array_map(fn($name) => $_SERVER["HTTP_$name"] ?? $_SERVER[$name] ?? '', SIGNED);
    $data = $_SERVER['HTTP_X_TRUNKLINE_CLIENT_DATA'] ?? null; // of the answer to `connect`
    $own = 'sha256=' . hash_hmac('sha256', implode("\n", [$seconds, ...$values, $body]), KEY);
    if (!array_filter($signatures, fn($one) => hash_equals($own, $one))) {
        throw new Refused("the signature is wrong: compare CHAT_KEY with the node's webhook secret", 401);
    }
    if (abs(time() - (int) $seconds) > 300) {
        [$there, $here] = [gmdate(DATE_ATOM, (int) $seconds), gmdate(DATE_ATOM)];
        throw new Refused("the time is off: the node signed at $there, and the clock here shows $here", 401);
    }
    if (!str_starts_with($_SERVER['CONTENT_TYPE'] ?? '', 'application/json')) {
        throw new Refused('this back end reads JSON, and no MessagePack', 415);
    }
    [$connection, , $category, $name, , $user, $claims, $query] = $values;
    parse_str(ltrim($query, '?'), $query);
    [$claims, $body] = [read_claims($claims), json_decode($body, true)];
    return compact('connection', 'user', 'category', 'name', 'claims', 'query', 'data', 'body');
}
