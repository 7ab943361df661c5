<?php
// Back end of the hub `chat` in PHP, behind a webhook; see docs/book/src/operators/webhooks.md. Try it by `php -S 127.0.0.1:7071 server.php`.

$methods = [
    'Add' => fn($one, $other) => $one + $other,
    // Sends to all clients, whoever they are connected to.
    'Say' => function ($text) {
        $content = json_encode(['target' => 'Said', 'arguments' => [$_SERVER['HTTP_X_ASRS_USER_ID'] ?? null, $text]]);
        $headers = ['Authorization: Bearer ' . getenv('TRUNKLINE_REST_TOKEN'), 'Content-Type: application/json'];
        $context = stream_context_create(['http' => ['method' => 'POST', 'header' => $headers, 'content' => $content]]);
        file_get_contents(getenv('TRUNKLINE_REST') . '/api/hubs/chat/:send', false, $context);
    },
];

$connection = $_SERVER['HTTP_X_ASRS_CONNECTION_ID'] ?? '';
$own = 'sha256=' . hash_hmac('sha256', $connection, getenv('TRUNKLINE_ACCESS_KEY'));
$given = explode(',', strtolower($_SERVER['HTTP_X_ASRS_SIGNATURE'] ?? ''));
if (!array_filter($given, fn($one) => hash_equals($own, $one))) {
    http_response_code(401);
    exit;
}
$event = $_SERVER['HTTP_X_ASRS_EVENT'];
if ($_SERVER['HTTP_X_ASRS_CATEGORY'] === 'connections') {
    error_log("$event $connection");
    http_response_code(204);
    exit;
}
if (!isset($methods[$event]) || $_SERVER['CONTENT_TYPE'] !== 'application/json') {
    http_response_code(404);
    exit;
}
$call = json_decode(file_get_contents('php://input'), true);
$result = $methods[$event](...$call['arguments']);
echo json_encode(['type' => 3, 'invocationId' => $call['invocationId'] ?? null, 'result' => $result]);
