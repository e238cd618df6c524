const ws = new WebSocket('ws://localhost:8080/ws');
ws.onopen = () => {
  ws.send(JSON.stringify({
    type: 'auth',
    token: 'YOUR_API_KEY'
  }));
};

const request = {
  "type": "inference",
  "id": "req_123",
  "model": "llama-2-7b",
  "prompt": "Tell me a story",
  "max_tokens": 200,
  "stream": true
};

ws.onmessage = (event) => {
  const data = JSON.parse(event.data);
  if (data.type === 'auth') {
    ws.send(JSON.stringify(request));
  } else if (data.type === 'token') {
    process.stdout.write(data.token);
  } else if (data.type === 'complete') {
    console.log(`\n${data.finish_reason}`);
    ws.close();
  } else if (data.type === 'error') {
    console.error('Error:', data.message);
    process.exitCode = 1;
    ws.close();
  }
};
